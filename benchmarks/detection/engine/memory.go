package main

import (
	"context"
	"fmt"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// memory stores samples as plain slices. Prometheus' own head block gives the same answers and takes five times as long,
// nearly all of it for decoding chunks again and again.
type memory struct {
	named  map[string][]*stored
	hashed map[uint64]*stored
	all    []*stored // by reference less one
}

type stored struct {
	labels  labels.Labels
	ref     storage.SeriesRef
	times   []int64 // milliseconds, rising
	numbers []float64
}

func newMemory() *memory {
	return &memory{named: map[string][]*stored{}, hashed: map[uint64]*stored{}}
}

func (m *memory) AppenderV2(context.Context) storage.AppenderV2 { return &appender{m} }

func (m *memory) Querier(mint, maxt int64) (storage.Querier, error) {
	return &querier{memory: m, mint: mint, maxt: maxt}, nil
}

type appender struct{ memory *memory }

func (a *appender) Commit() error   { return nil }
func (a *appender) Rollback() error { return nil }

// Append takes plain numbers only, as rules and scrapes here have no others.
func (a *appender) Append(
	ref storage.SeriesRef, l labels.Labels, _, t int64, v float64,
	h *histogram.Histogram, fh *histogram.FloatHistogram, _ storage.AppendV2Options,
) (storage.SeriesRef, error) {
	if h != nil || fh != nil {
		return 0, fmt.Errorf("%s: a histogram", l)
	}
	s, err := a.memory.find(ref, l)
	if err != nil {
		return 0, err
	}
	if n := len(s.times); n > 0 && s.times[n-1] >= t {
		return 0, fmt.Errorf("%s: %w", l, storage.ErrOutOfOrderSample)
	}
	s.times = append(s.times, t)
	s.numbers = append(s.numbers, v)
	return s.ref, nil
}

func (m *memory) find(ref storage.SeriesRef, l labels.Labels) (*stored, error) {
	if ref > 0 {
		return m.all[ref-1], nil
	}
	hash := l.Hash()
	if s := m.hashed[hash]; s != nil {
		if !labels.Equal(s.labels, l) {
			return nil, fmt.Errorf("%s and %s have the same hash", s.labels, l)
		}
		return s, nil
	}
	s := &stored{labels: l.Copy(), ref: storage.SeriesRef(len(m.all) + 1)}
	m.hashed[hash] = s
	m.all = append(m.all, s)
	name := l.Get(labels.MetricName)
	m.named[name] = append(m.named[name], s)
	return s, nil
}

type querier struct {
	storage.LabelQuerier
	memory     *memory
	mint, maxt int64
}

func (q *querier) Close() error { return nil }

func (q *querier) Select(
	_ context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher,
) storage.SeriesSet {
	mint, maxt := q.mint, q.maxt
	if hints != nil {
		mint, maxt = hints.Start, hints.End
	}
	candidates := q.memory.all
	for _, matcher := range matchers {
		if matcher.Name == labels.MetricName && matcher.Type == labels.MatchEqual {
			candidates = q.memory.named[matcher.Value]
		}
	}
	set := &seriesSet{at: -1}
	for _, s := range candidates {
		if matches(s.labels, matchers) && s.within(mint, maxt) {
			set.series = append(set.series, s)
		}
	}
	if sorted {
		sort.Slice(set.series, func(i, j int) bool {
			return labels.Compare(set.series[i].labels, set.series[j].labels) < 0
		})
	}
	return set
}

func matches(l labels.Labels, matchers []*labels.Matcher) bool {
	for _, matcher := range matchers {
		if matcher.Name == labels.MetricName && matcher.Type == labels.MatchEqual {
			continue
		}
		if !matcher.Matches(l.Get(matcher.Name)) {
			return false
		}
	}
	return true
}

func (s *stored) within(mint, maxt int64) bool {
	i := s.from(mint)
	return i < len(s.times) && s.times[i] <= maxt
}

// from returns the index of the first sample at or after a time; usually one of the last.
func (s *stored) from(t int64) int {
	low := 0
	for step := 64; step < len(s.times); step *= 4 {
		if at := len(s.times) - step; s.times[at] < t {
			low = at
			break
		}
	}
	return low + sort.Search(len(s.times)-low, func(i int) bool { return s.times[low+i] >= t })
}

func (s *stored) Labels() labels.Labels { return s.labels }

func (s *stored) Iterator(again chunkenc.Iterator) chunkenc.Iterator {
	if i, ok := again.(*iterator); ok {
		*i = iterator{stored: s, at: -1}
		return i
	}
	return &iterator{stored: s, at: -1}
}

type seriesSet struct {
	series []*stored
	at     int
}

func (s *seriesSet) Next() bool                        { s.at++; return s.at < len(s.series) }
func (s *seriesSet) At() storage.Series                { return s.series[s.at] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

type iterator struct {
	*stored
	at int
}

func (i *iterator) Next() chunkenc.ValueType {
	i.at++
	return i.kind()
}

func (i *iterator) Seek(t int64) chunkenc.ValueType {
	if i.at < 0 || (i.at < len(i.times) && i.times[i.at] < t) {
		i.at = max(i.from(t), i.at)
	}
	return i.kind()
}

func (i *iterator) kind() chunkenc.ValueType {
	if i.at < len(i.times) {
		return chunkenc.ValFloat
	}
	return chunkenc.ValNone
}

func (i *iterator) At() (int64, float64) { return i.times[i.at], i.numbers[i.at] }
func (i *iterator) AtT() int64           { return i.times[i.at] }
func (i *iterator) AtST() int64          { return 0 }
func (i *iterator) Err() error           { return nil }

func (i *iterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) { return 0, nil }

func (i *iterator) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	return 0, nil
}
