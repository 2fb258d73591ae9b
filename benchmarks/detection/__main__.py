"""Score the rules on simulated servers, or on a folder of traces: python -m benchmarks.detection [FOLDER]

Trace -> rows of pg_stat_activity, minute by minute -> the exporter's own code -> samples -> Prometheus' own engine with
dashboards/rules.yml, in simulated time -> tickets and pages -> the table. Run in the root of the checkout.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.detection import engine, samples
from benchmarks.detection.families import HELD_OUT, HELD_OUT_SEED, LEAKS, LOADS, simulate
from benchmarks.detection.report import table
from benchmarks.detection.score import PAGES, TICKETS, Score, judge
from benchmarks.detection.trace import Trace, Truth, load, save, stored, watched_late

_BATCH = 8  # traces per engine: as servers of one Prometheus they share the cost of each query
_QUICK = ("engine_request", "fast", "loop", "quiet_night")

Job = tuple[str, Callable[[], Trace]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 1 with a reason when the engine cannot be had."""
    options = _options(arguments)
    started = time.monotonic()
    try:
        binary = engine.build()
        jobs = list(_jobs(options))
        if options.installed is not None:
            jobs = [(name, partial(_late, make, options.installed)) for name, make in jobs]
        if not jobs:
            print("no traces found", file=sys.stderr)
            return 1
        scores = _scores(jobs, binary, engine.Scraping(options.lost, options.every), options)
    except engine.EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(table(scores)))
    print(
        f"{len(jobs)} traces, scraped {engine.Scraping(options.lost, options.every)}, in {time.monotonic() - started:.0f} s"
    )
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="traces to score instead of simulating")
    parser.add_argument("--quick", action="store_true", help="four short traces, for CI")
    parser.add_argument("--seeds", type=int, default=2, help="traces per family (default: 2)")
    parser.add_argument("--first", type=int, help=f"the first seed (default: {HELD_OUT_SEED}, with --tuning 0)")
    parser.add_argument("--families", default="", help="only these, separated by commas")
    parser.add_argument("--tuning", action="store_true", help="the families and seeds that the rules were made on")
    parser.add_argument("--lost", type=float, default=0.0, help="share of scrapes that fail (default: 0)")
    parser.add_argument("--every", type=int, default=1, help="minutes between scrapes (default: 1)")
    parser.add_argument(
        "--installed",
        type=float,
        metavar="HOURS",
        help="watch only since so many hours before the first leak; without one, since the second day",
    )
    parser.add_argument("--rules", type=Path, default=engine.RULES, help="other rules than dashboards/rules.yml")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", type=Path, help="keep the simulated traces in this folder")
    return parser.parse_args(arguments)


def _jobs(options: argparse.Namespace) -> Iterator[Job]:
    if options.folder:
        yield from ((path.name, partial(load, path)) for path in stored(options.folder))
        return
    first = options.first if options.first is not None else 0 if options.tuning else HELD_OUT_SEED
    names = [name for name in (*LEAKS, *LOADS) if not (options.tuning and name in HELD_OUT)]
    if options.quick:
        names, options.seeds = list(_QUICK), 1
    if options.families:
        names = options.families.split(",")
    for seed in range(first, first + options.seeds):
        for name in names:
            yield f"{name}-{seed}", partial(simulate, name, seed)


def _late(make: Callable[[], Trace], hours: float) -> Trace:
    return watched_late(make(), hours)


def _scores(
    jobs: Sequence[Job], binary: Path, scraping: engine.Scraping, options: argparse.Namespace
) -> dict[str, list[tuple[str, Score]]]:
    """Return for each set of alerts the scores by family."""
    sets = {
        "pgleak": (TICKETS, PAGES),
        "80 % of max_connections": (("EightyPercent",), ("EightyPercent",)),
        "predict_linear": (("PredictLinear",), ("PredictLinear",)),
    }
    scores: dict[str, list[tuple[str, Score]]] = {name: [] for name in sets}
    with tempfile.TemporaryDirectory(prefix="detection-") as folder, ProcessPoolExecutor(options.processes) as pool:
        batches = [jobs[at : at + _BATCH] for at in range(0, len(jobs), _BATCH)]
        work = partial(
            _batch, binary=binary, scraping=scraping, folder=Path(folder), rules=options.rules, keep=options.write
        )
        for batch in pool.map(work, batches):
            for truth, firings, evidence in batch:
                for name, (tickets, pages) in sets.items():
                    scores[name].append((truth.family, judge(truth, firings, tickets, pages, evidence)))
                print(f"  {truth.name}", file=sys.stderr)
    return scores


def _batch(
    jobs: Sequence[Job], binary: Path, scraping: engine.Scraping, folder: Path, rules: Path, keep: Path | None
) -> list[tuple[Truth, list[engine.Firing], list[int | None]]]:
    truths, files, evidence = [], [], []
    for name, make in jobs:
        trace = make()
        if keep:
            save(trace, keep / trace.truth.name)
        path = folder / f"{name}.gz"
        evidence.append(samples.write(trace, path))
        files.append(path)
        truths.append(trace.truth)
    firings = engine.run(binary, files, scraping, (rules, engine.BASELINES), groups="pgleak-growth")
    for path in files:
        path.unlink()
    return [
        (truth, [firing for firing in firings if firing.server == truth.name], found)
        for truth, found in zip(truths, evidence, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
