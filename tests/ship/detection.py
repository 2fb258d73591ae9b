"""The benchmark's engine and promtool's own test runner say the same of the same series, and the quick benchmark runs.

Not among the tests of `make test`: building Prometheus' engine takes Go and some minutes. .ci/run runs it.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.detection import engine  # noqa: E402  the benchmarks are no installed package
from benchmarks.detection.families import simulate  # noqa: E402
from benchmarks.detection.samples import readings  # noqa: E402
from benchmarks.detection.trace import watched_late  # noqa: E402

if TYPE_CHECKING:
    from pgleak.postgres.reader import Reading

pytestmark = pytest.mark.timeout(1500)

STEP = 300
_TESTS = [
    pytest.param(test, _minutes, id=test["name"].split(",")[0])
    for _file in map(yaml.safe_load, map(Path.read_text, sorted((ROOT / "tests" / "rules").glob("growth*.yml"))))
    for _minutes in [int(_file["evaluation_interval"].removesuffix("m"))]
    for test in _file["tests"]
    if "alert_rule_test" in test
]


def _values(notation: str) -> list[float | None]:
    """promtool's notation: 'axn' is n more of a, 'a+bxn' rises n times, 'a-bxn' falls, '_' and '_xn' are scrapes without it."""
    values: list[float | None] = []
    for part in notation.split():
        if missing := re.fullmatch(r"_(?:x(\d+))?", part):
            values += [None] * int(missing[1] or 1)
            continue
        match = re.fullmatch(r"([\d.]+)([+-][\d.]+)?(?:x(\d+))?", part)
        assert match, part
        values += [float(match[1]) + float(match[2] or 0) * index for index in range(int(match[3] or 0) + 1)]
    return values


def _write(test: dict[str, Any], path: Path) -> None:
    series = [(entry["series"], _values(entry["values"])) for entry in test["input_series"]]
    length = max(len(values) for _, values in series)
    with gzip.open(path, "wt") as file:
        for step in range(length):
            file.write(f"T {step * STEP}\n")
            for number, (name, values) in enumerate(series):
                if step == 0:
                    metric, _, labels = name.partition("{")
                    pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                    file.write(f"S {number} {json.dumps({'__name__': metric, **pairs})}\n")
                value = values[step] if step < len(values) else None
                file.write(f"X {number}\n" if value is None else f"{number} {value:g}\n")
            file.write("".join(f"T {step * STEP + minute * 60}\n" for minute in range(1, STEP // 60)))


def _seconds(text: str) -> int:
    return sum(int(number) * {"h": 3600, "m": 60}[unit] for number, unit in re.findall(r"(\d+)([hm])", text))


@pytest.mark.parametrize(("test", "minutes"), _TESTS)
def test_the_engine_says_what_promtool_says(test: dict[str, Any], minutes: int, tmp_path: Path) -> None:
    """The same alerts fire at the same moments; growth.yml and growth_days.yml hold what promtool said."""
    path = tmp_path / "orders.gz"
    _write(test, path)
    scraping = engine.Scraping(every=minutes)
    firings = engine.run(engine.build(), [path], scraping, [engine.RULES], "pgleak-growth", together=True)
    for entry in test["alert_rule_test"]:
        at = _seconds(entry["eval_time"])
        expected = {alert["exp_labels"].get("application_name", "") for alert in entry.get("exp_alerts", ())}
        fired = {
            firing.application_name
            for firing in firings
            if firing.alert == entry["alertname"] and firing.begin <= at and (firing.end is None or firing.end > at)
        }
        assert fired == expected, entry


def test_the_quick_benchmark_finds_its_leaks() -> None:
    command = [sys.executable, "-m", "benchmarks.detection", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=1200)
    total = next(line for line in done.stdout.splitlines() if "**pgleak**" in line)
    assert total.split("|")[2].strip() == "3/3", done.stdout


def test_who_watches_a_server_late_sees_what_it_is_from_then_on() -> None:
    """Connections that were open before, the leak and its sizes: all as if somebody had watched from the start."""
    trace = simulate("fast", 1)
    late = watched_late(trace, 6)
    (leak,), (same,) = trace.truth.leaks, late.truth.leaks
    cut = late.truth.t0 - trace.truth.t0
    assert 6 * 3600 <= same.start - late.truth.t0 < 6.5 * 3600
    assert leak.leaked[cut // 1800 :] == same.leaked
    everything, seen = ({t: _shape(reading) for t, reading in readings(each)} for each in (trace, late))
    assert seen == {t: shape for t, shape in everything.items() if t >= late.truth.t0}


def _shape(reading: Reading) -> object:
    """What was there; that an application was there once, only those know who have watched for longer."""
    there = {
        name: (+Counter(each.states), each.idle, each.suspects)
        for name, each in reading.applications.items()
        if any(each.states.values())
    }
    return reading.used, there
