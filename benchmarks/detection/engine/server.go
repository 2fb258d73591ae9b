package main

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
)

// Everything starts here: a Monday, and a whole number of every interval that a group may have.
var start = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// Where groups are evaluated together, each follows the scrape by some seconds, in the order of the files.
const apart = 500 * time.Millisecond

type event struct {
	Second int64             `json:"second"`
	Alert  string            `json:"alert"`
	Firing bool              `json:"firing"`
	Value  float64           `json:"value"`
	Labels map[string]string `json:"labels"`
}

type server struct {
	db     *memory
	groups []timed
	firing map[*rules.AlertingRule]map[uint64]*rules.Alert
}

// timed is a group and when it is evaluated: so long after each multiple of its interval.
type timed struct {
	*rules.Group
	offset time.Duration
}

// offset spreads groups over their intervals by their names. Prometheus does it by the file's path as well, but results
// ought to be the same in every folder.
func offset(name string, interval time.Duration) time.Duration {
	hash := fnv.New64a()
	hash.Write([]byte(name))
	return time.Duration(hash.Sum64()%uint64(interval/time.Second)) * time.Second
}

// open loads the groups whose names begin with a prefix. Together: all at the full multiples of their intervals, one after
// the other, as promtool evaluates them.
func open(files []string, prefix string, together bool, logger *slog.Logger) (*server, error) {
	db := newMemory()
	engine := promql.NewEngine(promql.EngineOpts{
		Logger:               logger,
		MaxSamples:           50_000_000, // Prometheus' default, as is the look-back
		Timeout:              2 * time.Minute,
		LookbackDelta:        5 * time.Minute,
		EnableAtModifier:     true,
		EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 {
			return time.Minute.Milliseconds()
		},
		Parser: parser.NewParser(parser.Options{}),
	})
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:    rules.EngineQueryFunc(engine, db),
		NotifyFunc:   func(context.Context, string, ...*rules.Alert) {},
		Context:      context.Background(),
		AppendableV2: db,
		Queryable:    db,
		Logger:       logger,
	})
	s := &server{db: db, firing: map[*rules.AlertingRule]map[uint64]*rules.Alert{}}
	for _, file := range files {
		found, errs := manager.LoadGroups(time.Minute, labels.EmptyLabels(), "", nil, false, file)
		if len(errs) > 0 {
			return nil, fmt.Errorf("%s: %w", file, errs[0])
		}
		order, err := groupOrder(file)
		if err != nil {
			return nil, err
		}
		for _, name := range order {
			if !strings.HasPrefix(name, prefix) {
				continue
			}
			group := timed{Group: found[rules.GroupKey(file, name)]}
			if together {
				group.offset = time.Second + time.Duration(len(s.groups))*apart
			} else {
				group.offset = offset(name, group.Interval())
			}
			s.groups = append(s.groups, group)
		}
	}
	slices.SortStableFunc(s.groups, func(a, b timed) int { return cmp.Compare(a.offset%time.Minute, b.offset%time.Minute) })
	for _, group := range s.groups {
		for _, rule := range group.Rules() {
			if alerting, ok := rule.(*rules.AlertingRule); ok {
				alerting.SetRestored(true) // there is no past to restore; without this there would be no ALERTS
				s.firing[alerting] = map[uint64]*rules.Alert{}
			}
		}
	}
	return s, nil
}

func (s *server) appender() storage.AppenderV2 { return s.db.AppenderV2(context.Background()) }

// evaluate runs the groups whose time has come in this minute and returns what changed.
func (s *server) evaluate(minute int64) ([]event, error) {
	var events []event
	for _, group := range s.groups {
		every := int64(max(group.Interval()/time.Minute, 1))
		if minute%every != int64(group.offset/time.Minute) {
			continue
		}
		group.Eval(context.Background(), start.Add(time.Duration(minute)*time.Minute+group.offset%time.Minute))
		for _, rule := range group.Rules() {
			if err := rule.LastError(); err != nil {
				return nil, fmt.Errorf("%s at minute %d: %w", rule.Name(), minute, err)
			}
			if alerting, ok := rule.(*rules.AlertingRule); ok {
				events = append(events, s.changes(alerting, minute)...)
			}
		}
	}
	return events, nil
}

func (s *server) changes(rule *rules.AlertingRule, minute int64) []event {
	before := s.firing[rule]
	if len(before) == 0 && rule.ActiveAlertsCount() == 0 {
		return nil
	}
	now := map[uint64]*rules.Alert{}
	for _, alert := range rule.ActiveAlerts() {
		if alert.State == rules.StateFiring {
			now[alert.Labels.Hash()] = alert
		}
	}
	var events []event
	for hash, alert := range now {
		if before[hash] == nil {
			events = append(events, newEvent(minute, rule, alert, true))
		}
	}
	for hash, alert := range before {
		if now[hash] == nil {
			events = append(events, newEvent(minute, rule, alert, false))
		}
	}
	s.firing[rule] = now
	sort.Slice(events, func(i, j int) bool { return fmt.Sprint(events[i]) < fmt.Sprint(events[j]) })
	return events
}

func newEvent(minute int64, rule *rules.AlertingRule, alert *rules.Alert, firing bool) event {
	return event{minute * 60, rule.Name(), firing, alert.Value, alert.Labels.Map()}
}
