"""What goes wrong seldom, all at once, as samples for a Prometheus: told by the project's own functions, as the story is.

Half an hour, and from its middle on: a server that is full and near the limits of a role and of a database, that refuses
logins, and whose sessions end badly; one that cannot be read; a pool that is used up, whose connections are dropped, orphaned and detached,
and whose engines pile up;
a process that hangs, a file and a folder that cannot be read, and connections on a server that is not watched.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from pgleak.holders import metrics as holders
from pgleak.holders.join import join
from pgleak.pool import merged
from pgleak.pool.reading import Reading as Folder
from pgleak.pool.reading import Reported
from pgleak.pool.snapshot import (
    Backend,
    Checkout,
    EngineSite,
    Frame,
    Limits,
    Owner,
    PoolCounters,
    PoolSnapshot,
    ProcessIdentity,
    ProcessSnapshot,
)
from pgleak.postgres import collector
from pgleak.postgres.canary import Logins
from pgleak.postgres.reader import Reading
from pgleak.postgres.reasons import REASONS
from story import samples
from story.clients import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.pool.snapshot import Place

END, STEP, SCRAPES = samples.END, 15.0, 120
BEGIN = END - SCRAPES * STEP
CASES = SCRAPES // 2  # of each mishap that is counted: one with every scrape since the middle
GAP = range(80, 110)  # scrapes in which the processes' reports are missing: longer than Prometheus looks back
POOLED = 6  # connections that the pool may open, all of them held
_SITE = Frame("shop.jobs", "forget", "jobs.py", 7)


def lines() -> Iterator[str]:
    """Yield OpenMetrics with timestamps; ends with its marker."""
    random = Random(1)
    shop, invoices = Client("shop", "shop", lambda _: 38), Client("invoices", "invoices", lambda _: 5)
    for number in range(SCRAPES + 1):
        now = BEGIN + number * STEP
        cases = max(number - SCRAPES // 2, 0)
        shop.step(now, STEP, random)
        invoices.step(now, STEP, random)
        full = _full(samples.reading("orders", [shop], now, random), cases)
        gone = _gone(samples.reading("billing", [invoices], now, random), cases)
        yield from samples.stamped(samples.text(collector.families([full, gone], samples.GROUPS)), now)
        processes = (Reported(_process(now, cases), silence=60.0 if cases else 1.0),)
        found = Folder(processes, skipped={"version": min(cases, 1)})
        if number not in GAP:
            yield from samples.stamped(samples.text(merged.collect_folder("", found)), now)
        other = Folder(problem="missing" if cases else "")
        yield from samples.stamped(samples.text(merged.collect_folder("", other)), now, instance="pgleak-2:10432")
        yield from samples.stamped(samples.text(holders.families(join([], processes))), now)
    yield "# EOF"


def _full(reading: Reading, cases: int) -> Reading:
    assert reading.server
    sessions = {kind: {"shop": float(cases)} for kind in ("sessions_abandoned", "sessions_fatal", "sessions_killed")}
    failures = {**dict.fromkeys(REASONS, 0), "role_limit": cases}
    logins = Logins(success=not cases, failures=failures)
    server = replace(reading.server, sessions=sessions, role_limits={"shop": 40}, database_limits={"shop": 50})
    return replace(reading, server=server, logins=logins, used=server.usable if cases else reading.used)


def _gone(reading: Reading, cases: int) -> Reading:
    if not cases:
        return reading
    errors = {**dict.fromkeys(REASONS, 0), "slots_exhausted": cases}
    return Reading(reading.name, "slots_exhausted", errors=errors, last_success=BEGIN + STEP * (SCRAPES // 2))


def _process(now: float, cases: int) -> ProcessSnapshot:
    some = {_SITE.site: cases} if cases else {}  # the counter of a place begins with its first case
    counters = PoolCounters(
        checkouts=100 * cases, opened=cases, timeouts=cases, closed={"invalidated": cases, "returned": 0},
        suspects=some, suspects_returned=some, returned_by_gc=some,
    )  # fmt: skip
    pooled: list[Place] = ["pool"] * POOLED
    held = [
        _checkout(number, place, now) for number, place in enumerate([*pooled, "orphaned", "detached"] * bool(cases))
    ]
    where = "db9:5432/shop"
    pool = PoolSnapshot(
        "shop", "QueuePool", "shop", where, 1 + cases, POOLED, 2 if cases else 0, (), tuple(held), (), {}, counters,
        (EngineSite((_SITE,), 1 + cases, cases),),
    )  # fmt: skip
    identity = ProcessIdentity(100, BEGIN - 60, "", "app", "shop")
    return ProcessSnapshot(identity, now, Limits(), (pool,), errors=cases)


def _checkout(number: int, place: Place, now: float) -> Checkout:
    backend = Backend(4000 + number, now - 700, "db9:5432/shop")
    owner = Owner("thread", "turn", "dead", 600.0)
    return Checkout(number, backend, now - 600, 600.0, "session", place, _SITE.site, (_SITE,), owner, (), "", None)
