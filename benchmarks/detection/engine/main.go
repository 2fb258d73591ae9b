// Engine evaluates Prometheus rules over recorded scrapes in simulated time, and says when alerts start and end.
//
//	engine -rules rules.yml [-rules more.yml] [-groups PREFIX] [-together] [-lost 0.05] [-every 5] FILE...
//
// PromQL and rule groups are Prometheus' own. Each file is one server of one Prometheus; all start at the same
// simulated moment. What is written: one JSON object per line for each alert that begins or ends to fire, with the
// seconds since the file's first scrape.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand"
	"os"
	"runtime/debug"
	"slices"
	"strings"
)

type paths []string

func (p *paths) String() string     { return strings.Join(*p, ",") }
func (p *paths) Set(s string) error { *p = append(*p, s); return nil }

func main() {
	var rules paths
	flag.Var(&rules, "rules", "a file of rules; may be repeated")
	lost := flag.Float64("lost", 0, "share of scrapes that fail")
	every := flag.Int("every", 1, "minutes between scrapes")
	groups := flag.String("groups", "", "evaluate only groups whose names begin so")
	seed := flag.Int64("seed", 1, "which scrapes fail")
	together := flag.Bool("together", false, "evaluate all groups at once, as promtool does, instead of spread over their intervals")
	flag.Parse()
	debug.SetGCPercent(400) // what is stored stays, so collecting it is in vain
	if err := run(rules, *groups, *together, flag.Args(), *lost, *every, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func run(ruleFiles []string, groups string, together bool, files []string, lost float64, every int, seed int64) error {
	if len(ruleFiles) == 0 || len(files) == 0 || every < 1 {
		return errors.New("needs -rules, files of scrapes, and -every of at least 1")
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	server, err := open(ruleFiles, groups, together, logger)
	if err != nil {
		return err
	}

	var targets []*target
	for i, file := range files {
		t, err := newTarget(file, lost, every, rand.New(rand.NewSource(seed+int64(i))))
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		defer t.close()
		targets = append(targets, t)
	}
	out := json.NewEncoder(os.Stdout)
	for minute := int64(0); len(targets) > 0; minute++ {
		app := server.appender()
		for _, t := range targets {
			if err := t.scrape(app, minute); err != nil {
				return fmt.Errorf("%s: %w", t.path, err)
			}
		}
		if err := app.Commit(); err != nil {
			return err
		}
		targets = slices.DeleteFunc(targets, func(t *target) bool { return t.ended })
		events, err := server.evaluate(minute)
		if err != nil {
			return err
		}
		for _, event := range events {
			if err := out.Encode(event); err != nil {
				return err
			}
		}
	}
	return nil
}
