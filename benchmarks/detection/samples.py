"""From a trace to what a Prometheus would have scraped, by the exporter's own code.

The rows of each minute are packed as ``activity.sql`` packs them; from there on everything is the exporter's: names,
judgement, families. Written as a file of changes for the engine: ``S id {labels}`` names a series, then for each minute
``T seconds``, ``id value`` for each series whose value is new and ``X id`` for each that is gone.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.detection.trace import STEP, Changes, Truth

from pgleak.postgres.activity import Server, summarise
from pgleak.postgres.collector import families
from pgleak.postgres.evidence import Packed
from pgleak.postgres.names import Namer
from pgleak.postgres.reader import Reading
from pgleak.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TextIO

    from benchmarks.detection.trace import Leak, Trace

    from pgleak.postgres.activity import Application

_Series = tuple[Any, ...]
"""The name of a metric, then its labels as pairs."""

_NAMES = (
    "pgleak_connections",
    "pgleak_suspect_connections",
    "pgleak_idle_seconds",
    "pgleak_application_ignored",
    "pgleak_used_connections",
    "pgleak_usable_connections",
    "pgleak_max_connections",
    "pgleak_up",
    "pgleak_stats_visible",
    "pgleak_postmaster_start_timestamp_seconds",
)
"""What rules on growth may read; other histograms of ages and counters are left out of the file."""

_AGES = frozenset({"300.0", "900.0", "+Inf"})
"""The buckets of ``pgleak_idle_seconds`` that rules on growth may read."""

_EVIDENCE = 3
"""So many suspects are the least that the rules ask for."""


class _Activity:
    """The connections that are open now, kept per pack, so that a minute costs what it changes."""

    def __init__(self) -> None:
        self._at: dict[int, tuple[str, str, str, str, str]] = {}
        self._packs: dict[tuple[str, str, str, str, str], dict[int, tuple[int, int, int]]] = {}

    def apply(self, changes: Changes) -> None:
        for pid in changes.closed:
            self._remove(pid)
        for o in changes.opened:
            self._add(o.pid, o[1:6], _ms(o.backend_start), _ms(o.xact_start), _ms(o.state_change))
        for c in changes.changed:
            key = self._at[c.pid]
            start = self._packs[key][c.pid][0]
            if key[4] != c.state:
                self._remove(c.pid)
                key = (*key[:4], c.state)
            self._add(c.pid, key, start, _ms(c.xact_start), _ms(c.state_change))

    def _add(self, pid: int, key: tuple[str, str, str, str, str], start: int, xact: int, change: int) -> None:
        self._at[pid] = key
        self._packs.setdefault(key, {})[pid] = (start, xact, change)

    def _remove(self, pid: int) -> None:
        key = self._at.pop(pid)
        pack = self._packs[key]
        del pack[pid]
        if not pack:
            del self._packs[key]

    def rows(self, now_ms: int) -> list[Packed]:
        return [
            Packed.of_ages(
                *key,
                session=[max(now_ms - start, 0) for start, _, _ in pack.values()],
                unused=[max(now_ms - change, 0) for _, _, change in pack.values()],
                transaction=[max(now_ms - xact, 0) if xact else -1 for _, xact, _ in pack.values()],
            )
            for key, pack in self._packs.items()
        ]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def readings(trace: Trace) -> Iterator[tuple[int, Reading]]:
    """Yield what the exporter would have read each minute; a server that is down gives a reading without one."""
    truth = trace.truth
    settings = Settings(targets=())
    namer = Namer(settings)
    activity = _Activity()
    server = _server(truth)
    for changes in every_minute(trace):
        activity.apply(changes)
        rows = activity.rows(changes.t * 1000)
        if changes.t in truth.down or not rows:
            yield changes.t, Reading(truth.name, reason="connection_refused")
            continue
        places = namer.places(rows, changes.t)
        applications = namer.remember(summarise(rows, places, settings.thresholds), changes.t)
        yield (
            changes.t,
            Reading(
                truth.name,
                server=server,
                used=sum(row.size for row in rows),
                applications=applications,
            ),
        )


def every_minute(trace: Trace) -> Iterator[Changes]:
    """Fill the minutes in which nothing changed."""
    t = trace.truth.t0
    for changes in trace.changes():
        while t < changes.t:
            yield Changes(t, [], [], [])
            t += STEP
        yield changes
        t = changes.t + STEP
    while t <= trace.truth.t_end:
        yield Changes(t, [], [], [])
        t += STEP


def _server(truth: Truth) -> Server:
    return Server(
        max_connections=truth.max_connections,
        superuser_reserved=truth.superuser_reserved,
        reserved=0,
        postmaster_start=float(truth.t0),
        superuser=False,
        stats_visible=True,
        may_use_reserved=False,
    )


def write(trace: Trace, path: Path) -> list[int | None]:
    """Write the samples of a trace to a file, whole or not at all.

    Return for each leak when the exporter had evidence of it first: three suspects more than the application had when it
    began to leak, as seconds since the trace began. No rule that asks for three can speak sooner.
    """
    leaks = trace.truth.leaks
    before: list[int] = [0] * len(leaks)
    evidence: list[int | None] = [None] * len(leaks)
    part = path.with_suffix(".part")
    with gzip.open(part, "wt", compresslevel=1) as file:
        sink = _Sink(file)
        for t, reading in readings(trace):
            sink.scrape(t, reading)
            for index, leak in enumerate(leaks):
                if evidence[index] is None:
                    now = _suspects(reading, leak)
                    if t <= leak.start:
                        before[index] = now
                    elif now >= before[index] + _EVIDENCE:
                        evidence[index] = t - trace.truth.t0
    part.rename(path)
    return evidence


def _suspects(reading: Reading, leak: Leak) -> int:
    """How many suspects the leaking application has."""
    return sum(
        sum(application.suspects)
        for (_, usename, name), application in reading.applications.items()
        if leak.is_of(usename, name)
    )


class _Sink:
    """Turns readings into samples; an application that looks as it did a minute ago is not turned again."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._group_by = Settings(targets=()).group_by
        self._ids: dict[_Series, int] = {}
        self._keys: dict[_Series, tuple[str, ...]] = {}  # to which application a series belongs
        self._values: dict[_Series, float] = {}
        self._applications: dict[tuple[str, ...], Application] = {}

    def scrape(self, t: int, reading: Reading) -> None:
        before, self._applications = self._applications, dict(reading.applications)
        same = {key for key, application in before.items() if _alike(application, self._applications.get(key))}
        news = replace(reading, applications={k: a for k, a in self._applications.items() if k not in same})
        values = {series: value for series, value in self._values.items() if self._keys[series] in same}
        for family in families([news], self._group_by):
            if family.name in _NAMES:
                for sample in family.samples:
                    if family.name == "pgleak_idle_seconds" and sample.labels.get("le") not in _AGES:
                        continue
                    series: _Series = (sample.name, *sample.labels.items())
                    values[series] = float(sample.value)
        lines = [f"T {t}"]
        lines += [f"X {self._ids[series]}" for series in self._values.keys() - values.keys()]
        for series, value in values.items():
            if series not in self._ids:
                self._ids[series] = len(self._ids)
                labels = {"__name__": series[0], **dict(series[1:])}
                self._keys[series] = tuple(labels.get(name, "") for name in self._group_by)
                lines.append(f"S {self._ids[series]} {json.dumps(labels)}")
            if self._values.get(series) != value:
                lines.append(f"{self._ids[series]} {value:g}")
        self._values = values
        self._file.write("\n".join(lines) + "\n")


def _alike(one: Application, other: Application | None) -> bool:
    """Whether two looks at an application give the same samples of what is written here."""
    return other is not None and all(
        (one.states == other.states, one.suspects == other.suspects, one.idle.counts == other.idle.counts)
    )
