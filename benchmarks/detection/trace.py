"""A trace: everything that pg_stat_activity showed of one server, minute by minute, and the truth about it.

On disk a trace is a folder ``FAMILY-SEED`` with ``trace.csv.gz``, a change log, and ``labels.json``. Columns of the change
log: ``t,op,pid,datname,usename,application_name,client_addr,state,backend_start,xact_start,state_change``; ``op`` is
``open`` (all columns), ``update`` (pid, state, xact_start, state_change) or ``close`` (pid); times are Unix seconds.
A connection keeps its last state until its next row, and there is a snapshot every minute, also when nothing changed.
"""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

STEP = 60
HOUR = 3600
DAY = 24 * HOUR
_ENTRY = 1800  # seconds from one entry of `Leak.leaked` to the next

_COLUMNS = (
    "t", "op", "pid", "datname", "usename", "application_name", "client_addr", "state", "backend_start", "xact_start",
    "state_change",
)  # fmt: skip


class Opened(NamedTuple):
    """A connection as it is first seen; Unix seconds, and 0 for no transaction."""

    pid: int
    datname: str
    usename: str
    application_name: str
    client_addr: str
    state: str
    backend_start: float
    xact_start: float
    state_change: float


class Changed(NamedTuple):
    """What is new about a connection that was there before."""

    pid: int
    state: str
    xact_start: float
    state_change: float


@dataclass(slots=True)
class Changes:
    """What happened up to ``t`` since the minute before, in the order in which it is to be applied."""

    t: int
    closed: list[int]
    opened: list[Opened]
    changed: list[Changed]


@dataclass(frozen=True, slots=True)
class Leak:
    """One leak: who (role and name as the server sees them), and when its first connection leaked."""

    usename: str
    application_name: str
    start: int
    starved_at: int | None = None  # when the pool had no connection left to leak
    leaked: tuple[int, ...] = ()  # connections leaked, every 30 minutes from t0

    def is_of(self, usename: str, application_name: str) -> bool:
        """Whether these labels name the application that leaks."""
        return (self.usename, self.application_name) == (usename, shown(application_name))


@dataclass(frozen=True, slots=True)
class Truth:
    """What a judge of the trace knows, and the rules do not."""

    family: str
    seed: int
    t0: int
    t_end: int
    max_connections: int
    superuser_reserved: int
    applications: tuple[tuple[str, str], ...]  # (usename, application_name)
    leaks: tuple[Leak, ...]
    exhausted_at: int | None
    down: frozenset[int] = frozenset()  # minutes without a server
    growing: frozenset[tuple[str, str]] = frozenset()  # applications that grow without end and do not leak
    cold: bool = True  # whether all applications have just been started at t0

    @property
    def name(self) -> str:
        return f"{self.family}-{self.seed}"


@dataclass(frozen=True, slots=True)
class Trace:
    """The truth, and a way to go through the changes once."""

    truth: Truth
    changes: Callable[[], Iterator[Changes]]


def shown(label: str) -> str:
    """The application_name that a label stands for."""
    return "" if label == "(unset)" else label


def stored(folder: Path) -> list[Path]:
    """Return the traces in a folder, or the folder itself when it is one."""
    if (folder / "labels.json").exists():
        return [folder]
    return sorted(path.parent for path in folder.glob("*/labels.json"))


def load(folder: Path) -> Trace:
    """Read a trace from disk, its change log only when asked for."""
    return Trace(_truth(json.loads((folder / "labels.json").read_text())), lambda: _read(folder / "trace.csv.gz"))


def save(trace: Trace, folder: Path) -> None:
    """Write a trace in the format that :func:`load` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "trace.csv.gz", "wt", newline="", compresslevel=5) as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for changes in trace.changes():
            t = changes.t
            writer.writerows((t, "close", pid, *[""] * 8) for pid in changes.closed)
            writer.writerows((t, "open", *o[:6], *_times(*o[6:])) for o in changes.opened)
            writer.writerows((t, "update", c.pid, *[""] * 4, c.state, "", *_times(*c[2:])) for c in changes.changed)
    (folder / "labels.json").write_text(json.dumps(_labels(trace.truth), indent=1))


def watched_late(trace: Trace, hours: float) -> Trace:
    """The same server, watched only since so many hours before its first leak; without one, since an hour of its second day.

    The applications are warm by then, and nothing is known of them: pgleak was installed because something was wrong.
    """
    truth = trace.truth
    calm = truth.t0 + DAY + truth.seed % 24 * HOUR
    counted = (leak.start for leak in truth.leaks if truth.exhausted_at is None or leak.start < truth.exhausted_at)
    first = min((start - hours * HOUR for start in counted), default=calm)
    entries = max(int(first - truth.t0) // _ENTRY, 0)
    begin = truth.t0 + entries * _ENTRY
    leaks = tuple(replace(leak, leaked=leak.leaked[entries:]) for leak in truth.leaks)
    late = replace(truth, t0=begin, leaks=leaks, cold=truth.cold and not entries)
    return Trace(late, lambda: _from(begin, trace.changes()))


def _from(begin: int, everything: Iterator[Changes]) -> Iterator[Changes]:
    """What is open when the watch begins is opened then; what has come since goes on as it was."""
    there: dict[int, Opened] = {}
    begun = False
    for changes in everything:
        if not begun and changes.t > begin:
            begun = True
            yield Changes(begin, [], list(there.values()), [])
        if begun:
            yield changes
            continue
        for pid in changes.closed:
            del there[pid]
        there.update((each.pid, each) for each in changes.opened)
        for each in changes.changed:
            there[each.pid] = there[each.pid]._replace(**each._asdict())


def _times(*times: float) -> list[str]:
    return [f"{time:.1f}" if time else "" for time in times]


def _read(path: Path) -> Iterator[Changes]:
    now = Changes(0, [], [], [])
    with gzip.open(path, "rt", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        for t, op, pid, datname, usename, name, address, state, start, xact, change in rows:
            if int(t) != now.t:
                if now.t:
                    yield now
                now = Changes(int(t), [], [], [])
            if op == "update":
                now.changed.append(Changed(int(pid), state, float(xact or 0), float(change)))
            elif op == "open":
                times = (float(start), float(xact or 0), float(change))
                now.opened.append(Opened(int(pid), datname, usename, name, address, state, *times))
            else:
                now.closed.append(int(pid))
    yield now


def _truth(labels: dict[str, Any]) -> Truth:
    server = labels["server"]
    return Truth(
        family=labels["family"],
        seed=labels["seed"],
        t0=labels["t0"],
        t_end=labels["t_end"],
        max_connections=server["max_connections"],
        superuser_reserved=server["superuser_reserved_connections"],
        applications=tuple((app["usename"], app["application_name"]) for app in labels["apps"]),
        leaks=tuple(
            Leak(
                leak["usename"],
                leak["application_name"],
                leak["start"],
                leak.get("app_starved_at"),
                tuple(leak.get("leaked_every_30min") or ()),
            )
            for leak in labels["leaks"]
            if leak["start"] is not None
        ),
        exhausted_at=labels["exhausted_at"],
        down=frozenset(_minutes(labels.get("down_at") or ())),
        growing=frozenset((app["usename"], app["application_name"]) for app in labels["apps"] if app.get("grows")),
        cold=labels.get("cold", True),
    )


def _minutes(down: Iterable[int | list[int]]) -> Iterator[int]:
    """Moments, or pairs of the first and the last."""
    for entry in down:
        first, last = (entry[0], entry[-1]) if isinstance(entry, list) else (entry, entry)
        yield from range(first - first % STEP, last + 1, STEP)


def _labels(truth: Truth) -> dict[str, Any]:
    return {
        "family": truth.family,
        "seed": truth.seed,
        "kind": "leak" if truth.leaks else "benign",
        "t0": truth.t0,
        "t_end": truth.t_end,
        "step_s": STEP,
        "server": {
            "max_connections": truth.max_connections,
            "superuser_reserved_connections": truth.superuser_reserved,
        },
        "apps": [
            {"usename": usename, "application_name": name, "grows": (usename, name) in truth.growing}
            for usename, name in truth.applications
        ],
        "leaks": [
            {
                "usename": leak.usename,
                "application_name": leak.application_name,
                "start": leak.start,
                "app_starved_at": leak.starved_at,
                "leaked_every_30min": leak.leaked,
            }
            for leak in truth.leaks
        ],
        "exhausted_at": truth.exhausted_at,
        "down_at": sorted(truth.down),
        "cold": truth.cold,
    }
