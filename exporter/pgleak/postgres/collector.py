"""From readings to metric families: pure, and fresh on each scrape, so that what vanished is gone."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

from prometheus_client.utils import floatToGoString

from pgleak import metrics
from pgleak.exposition import Column, Columns, Grid, Labels, Row
from pgleak.postgres.evidence import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.core import Metric

    from pgleak.postgres.activity import Ages, Application
    from pgleak.postgres.reader import Reading
    from pgleak.spec import Spec

_USUAL_STATES = ("active", "idle", "idle in transaction")
_BOUNDS = tuple(floatToGoString(bound) for bound in (*metrics.AGE_BUCKETS, float("inf")))
_EVIDENCE = Columns.of(*[Column.of(metrics.SUSPECTS.name, "evidence", kind) for kind in KINDS])

_SESSION_COUNTERS = {
    "sessions": metrics.SESSIONS,
    "sessions_abandoned": metrics.SESSIONS_ABANDONED,
    "sessions_fatal": metrics.SESSIONS_FATAL,
    "sessions_killed": metrics.SESSIONS_KILLED,
}


def families(readings: Sequence[Reading], group_by: Sequence[str]) -> Iterator[Metric]:
    """Yield one family per metric of the server half, with the samples of all readings.

    ``group_by`` names the label of each part of an application's key. A family without samples is left out.
    """
    for family in (*_of_servers(readings), *_of_applications(readings, group_by)):
        if family.rows if isinstance(family, Grid) else family.samples:
            yield family


def _of_servers(readings: Sequence[Reading]) -> Iterator[Metric]:
    up = [(reading, reading.server) for reading in readings if reading.server]
    yield metrics.UP.family(((r.name,), float(r.server is not None)) for r in readings)
    yield metrics.SCRAPE_DURATION.family(((r.name,), r.duration) for r in readings)
    yield metrics.SCRAPE_ERRORS.family(((r.name, reason), n) for r in readings for reason, n in r.errors.items())
    yield metrics.LAST_SUCCESS.family(((r.name,), r.last_success) for r in readings if r.last_success is not None)
    yield metrics.USED.family(((r.name,), r.used) for r, _ in up)
    yield metrics.USABLE.family(((r.name,), s.usable) for r, s in up)
    yield metrics.MAX.family(((r.name,), s.max_connections) for r, s in up)
    yield metrics.RESERVED.family(((r.name,), s.reserved) for r, s in up)
    yield metrics.SUPERUSER_RESERVED.family(((r.name,), s.superuser_reserved) for r, s in up)
    yield metrics.ROLE_LIMIT.family(((r.name, role), n) for r, s in up for role, n in s.role_limits.items())
    yield metrics.DATABASE_LIMIT.family(((r.name, name), n) for r, s in up for name, n in s.database_limits.items())
    for kind, spec in _SESSION_COUNTERS.items():
        yield spec.family(((r.name, name), n) for r, s in up for name, n in s.sessions.get(kind, {}).items())
    yield metrics.STATS_VISIBLE.family(((r.name,), float(s.stats_visible)) for r, s in up)
    yield metrics.POSTMASTER_START.family(((r.name,), s.postmaster_start) for r, s in up)
    for label, spec in metrics.OVERFLOWED.items():
        yield spec.family(((r.name,), r.overflowed[label]) for r, _ in up if label in r.overflowed)
    yield metrics.COMBINATIONS_OVERFLOWED.family(((r.name,), r.combinations_overflowed) for r, _ in up)
    logins = [(reading.name, reading.logins) for reading in readings if reading.logins]
    yield metrics.LOGIN_SUCCESS.family(
        ((name,), float(known.success)) for name, known in logins if known.success is not None
    )
    yield metrics.LOGIN_FAILURES.family(
        ((name, reason), n) for name, known in logins for reason, n in known.failures.items()
    )


def _of_applications(readings: Sequence[Reading], group_by: Sequence[str]) -> Iterator[Metric]:
    entries = [
        (Labels({"server": reading.name, **dict(zip(group_by, key, strict=True))}), application)
        for reading in readings
        for key, application in reading.applications.items()
    ]
    seen = [(labels, application) for labels, application in entries if application.visible]
    # What fell to zero is shown as numbers of 0; twenty more series of ages that nobody has would say nothing.
    here = [(labels, application) for labels, application in seen if application.connections]

    yield _grid(metrics.CONNECTIONS, [_states(labels, application) for labels, application in entries])
    yield _grid(metrics.SUSPECTS, [Row(labels, _EVIDENCE, a.suspects) for labels, a in seen if not a.ignored])
    yield _histogram(metrics.IDLE_SECONDS, [(labels, application.idle) for labels, application in here])
    yield _histogram(metrics.SESSION_SECONDS, [(labels, application.session) for labels, application in here])
    yield _gauge(metrics.OLDEST_IDLE, [(labels, a.idle.oldest) for labels, a in here])
    yield _gauge(metrics.OLDEST_TRANSACTION, [(labels, a.oldest_transaction) for labels, a in here])
    yield _gauge(metrics.IGNORED, [(labels, 1) for labels, a in entries if a.ignored])


def _states(labels: Labels, application: Application) -> Row:
    """Return the numbers per state; the usual states also when 0, because they come and go between two scrapes."""
    usual = dict.fromkeys(_USUAL_STATES, 0) if application.visible else {}
    states = {**usual, **application.states}
    return Row(labels, _columns_of(tuple(states)), list(states.values()))


@lru_cache(maxsize=256)
def _columns_of(states: tuple[str, ...]) -> Columns:
    return Columns.of(*[Column.of(metrics.CONNECTIONS.name, "state", state) for state in states])


def _gauge(spec: Spec, samples: list[tuple[Labels, float]]) -> Metric:
    columns = Columns.of(Column.of(spec.name))
    return _grid(spec, [Row(labels, columns, (value,)) for labels, value in samples])


def _histogram(spec: Spec, samples: list[tuple[Labels, Ages]]) -> Metric:
    columns = _columns_of_histogram(spec.name)
    return _grid(spec, [Row(labels, columns, (*ages.counts, ages.counts[-1], ages.total)) for labels, ages in samples])


@cache
def _columns_of_histogram(name: str) -> Columns:
    buckets = [Column.of(f"{name}_bucket", "le", bound) for bound in _BOUNDS]
    return Columns.of(*buckets, Column.of(f"{name}_gcount"), Column.of(f"{name}_gsum"))


def _grid(spec: Spec, rows: list[Row]) -> Grid:
    return Grid(spec.name, spec.help, spec.kind, rows)
