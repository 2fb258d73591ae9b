package main

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
)

type series struct {
	labels labels.Labels
	ref    storage.SeriesRef
	value  float64
	there  bool // in the exposition
	stored bool // in Prometheus, not marked stale
}

// target is one server's scrapes: lines "S id {labels}", then per minute "T seconds", "id value" and "X id".
type target struct {
	path   string
	file   *os.File
	zip    *gzip.Reader
	lines  *bufio.Scanner
	series []*series
	ended  bool
	more   bool // the scanner stands on the next minute

	lost  float64
	every int
	rand  *rand.Rand
}

func newTarget(path string, lost float64, every int, random *rand.Rand) (*target, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	zip, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	t := &target{path: path, file: file, zip: zip, lines: bufio.NewScanner(zip), lost: lost, every: every, rand: random}
	t.more = t.lines.Scan()
	return t, t.lines.Err()
}

func (t *target) close() {
	t.zip.Close()
	t.file.Close()
}

// scrape stores one minute; a scrape that fails, and the end, mark every series as stale, as Prometheus does.
func (t *target) scrape(app storage.AppenderV2, minute int64) error {
	if !t.more {
		t.ended = true
		return t.store(app, minute, false)
	}
	if err := t.read(); err != nil {
		return err
	}
	if minute%int64(t.every) != 0 {
		return nil
	}
	return t.store(app, minute, t.rand.Float64() >= t.lost)
}

func (t *target) store(app storage.AppenderV2, minute int64, succeeded bool) error {
	at := start.Add(time.Duration(minute) * time.Minute).UnixMilli()
	for _, s := range t.series {
		number := s.value
		if !s.there || !succeeded {
			if !s.stored {
				continue
			}
			number = math.Float64frombits(value.StaleNaN)
		}
		ref, err := app.Append(s.ref, s.labels, 0, at, number, nil, nil, storage.AppendV2Options{})
		if err != nil {
			return err
		}
		s.ref, s.stored = ref, s.there && succeeded
	}
	return nil
}

// read takes in the lines of one minute.
func (t *target) read() error {
	if !strings.HasPrefix(t.lines.Text(), "T ") {
		return fmt.Errorf("expected a time, found %q", t.lines.Text())
	}
	for {
		t.more = t.lines.Scan()
		if !t.more || strings.HasPrefix(t.lines.Text(), "T ") {
			return t.lines.Err()
		}
		if err := t.line(t.lines.Text()); err != nil {
			return err
		}
	}
}

func (t *target) line(text string) error {
	first, rest, _ := strings.Cut(text, " ")
	switch first {
	case "S":
		_, pairs, _ := strings.Cut(rest, " ")
		named := map[string]string{}
		if err := json.Unmarshal([]byte(pairs), &named); err != nil {
			return err
		}
		t.series = append(t.series, &series{labels: labels.FromMap(named)})
	case "X":
		id, err := strconv.Atoi(rest)
		if err != nil {
			return err
		}
		t.series[id].there = false
	default:
		id, err := strconv.Atoi(first)
		if err != nil {
			return err
		}
		if t.series[id].value, err = strconv.ParseFloat(rest, 64); err != nil {
			return err
		}
		t.series[id].there = true
	}
	return nil
}
