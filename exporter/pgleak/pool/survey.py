"""The ledger at one moment, as a frozen snapshot: lines are looked up and owners are asked only here."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import TYPE_CHECKING

from sqlalchemy.pool import AssertionPool, NullPool, QueuePool, SingletonThreadPool, StaticPool

from pgleak.pool.lines import resolve, site_of
from pgleak.pool.marks import expected_now
from pgleak.pool.process import identity, lives
from pgleak.pool.sites import SITE_BOUNDS
from pgleak.pool.snapshot import (
    CREATE_BOUNDS,
    OTHER_SITES,
    UNKNOWN_SITE,
    USE_BOUNDS,
    Backend,
    Checkout,
    EngineSite,
    Histogram,
    PoolCounters,
    PoolSnapshot,
    ProcessSnapshot,
    SiteStatistics,
)
from pgleak.pool.suspects import SEVERAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import URL
    from sqlalchemy.pool import Pool

    from pgleak.pool.connection import Connection, Holding
    from pgleak.pool.ledger import Ledger, PoolLedger, WatchedEngine
    from pgleak.pool.sites import Site
    from pgleak.pool.snapshot import Frame, Limits, Place


#: Seconds from an engine's birth within which every use may belong to the one call that made it; less where `alive_owner` is.
_ONE_CALL = 30.0
#: One engine in so many that is used again later shows that its site keeps engines to come back to, one per tenant perhaps.
_COME_BACK = 10


def survey(
    ledger: Ledger,
    *,
    wall_clock: Callable[[], float] = time.time,
    monotonic_clock: Callable[[], float] = time.monotonic,
) -> ProcessSnapshot:
    """What this process reports now. Safe in any thread while the pools are at work."""
    wall, now = wall_clock(), monotonic_clock()
    pools = tuple(_pool(ledger, pool, wall, now) for pool in ledger.pools.copy().values() if not _is_blank(pool))
    names = [pool.application_name for pool in pools if pool.application_name]
    errors = sum(pool.errors for pool in ledger.pools.copy().values())
    return ProcessSnapshot(identity(names[0] if names else ""), wall, ledger.limits, pools, errors + ledger.errors)


def _is_blank(pool: PoolLedger) -> bool:
    """Nothing is left of it and nothing ever happened: an engine that came and went unused."""
    return not pool.engines and not pool.connections and not pool.opened


def _pool(ledger: Ledger, pool: PoolLedger, wall: float, now: float) -> PoolSnapshot:
    idle: list[Backend] = []
    orphans: list[Backend] = []
    orphaned_at: list[tuple[Frame, ...]] = []
    checkouts: list[Checkout] = []
    for connection in pool.connections.copy().values():
        holding = holding_of(connection)
        backend = Backend(connection.pid, connection.opened, connection.server)
        place = place_of(connection)
        if holding is not None:
            checkouts.append(_checkout(holding, backend, place, wall, now))
        elif place == "pool":
            idle.append(backend)
        elif not connection.inherited:
            orphans.append(backend)
            orphaned_at.append(resolve(connection.last))
    watched = list(pool.engines.copy().values())
    engines = [engine for engine in (each.engine() for each in watched) if engine is not None]
    return PoolSnapshot(
        name=pool.name,
        pool_class=type(engines[-1].pool).__name__ if engines else pool.pool_class,
        application_name=pool.application_name,
        server=pool.server,
        engines=len(engines),
        connections_max=float(sum(capacity(engine.pool) for engine in engines)),
        pending=max(pool.pending, 0),
        idle=tuple(idle),
        checkouts=tuple(checkouts),
        orphans=tuple(orphans),
        sites=_statistics(pool),
        counters=_counters(pool),
        made=tuple(_made(pool, watched, ledger.limits, now)),
        orphaned_at=tuple(orphaned_at),
    )


def _made(pool: PoolLedger, engines: list[WatchedEngine], limits: Limits, now: float) -> Iterator[EngineSite]:
    """The engines that live, by the code that made them."""
    connections: dict[int, list[Connection]] = {}
    for connection in pool.connections.copy().values():
        connections.setdefault(id(connection.engine), []).append(connection)
    one_call = min(limits.alive_owner, _ONE_CALL)
    sites: dict[
        tuple[Frame, ...], list[tuple[bool, bool, object]]
    ] = {}  # not by the raw stacks: the first of a process may differ
    for watched in engines:
        engine = watched.engine()
        if watched.made and engine is not None:
            owned = connections.get(id(watched), [])
            last = max((each.used_at for each in owned), default=watched.born)
            again = last - watched.born > one_call
            idle = bool(owned) and all(each.out is None for each in owned) and now - last > limits.unproven_site
            whose = _whose(engine.url), watched.whose
            sites.setdefault(resolve(watched.made), []).append((again, idle and not again, whose))
    for frames, engines_of_site in sites.items():
        cached = sum(again for again, _, _ in engines_of_site) * _COME_BACK > len(engines_of_site)
        same = Counter(whose for _, _, whose in engines_of_site)
        unused = sum(unused and same[whose] >= SEVERAL for _, unused, whose in engines_of_site)
        yield EngineSite(frames, len(engines_of_site), 0 if cached else unused)


def _whose(url: URL) -> object:
    """What sets tenants apart: server, database, role, `options` with a search path. A call of one tenant makes no other."""
    query = tuple(each for each in url.query.items() if each[0] != "application_name")
    return url.username, url.host, url.port, url.database, query


def holding_of(connection: Connection) -> Holding | None:
    """What holds this connection now; of one that a forked process took from its parent, what took it first."""
    if connection.misuse is not None:
        if connection.inherited and lives(connection.inherited) and _is_pooled(connection):
            return connection.misuse
        # the child has it alone by now, as a daemon does, or has disposed of its pool
        connection.engine.ledger.ended.append(connection.misuse[0])
        connection.misuse = None
    holding = connection.out
    if holding is not None or not connection.shared:
        return holding
    # a StaticPool tells of one return only; whoever still has an open proxy still holds the connection
    for other in reversed(connection.shared):
        proxy = other[6]()
        if proxy is not None and proxy.dbapi_connection is not None:
            return other
    return None


def place_of(connection: Connection) -> Place:
    """Who still counts this connection."""
    if connection.inherited and lives(connection.inherited):
        return "inherited"
    if connection.detached:
        return "detached"
    return "pool" if _is_pooled(connection) else "orphaned"


def _is_pooled(connection: Connection) -> bool:
    """Whether it belongs to the pool that its engine has now, as far as can be told."""
    if connection.pool is None:
        return True
    pool, engine = connection.pool(), connection.engine.engine()
    return pool is not None and (engine is None or engine.pool is pool)


def _checkout(holding: Holding, backend: Backend, place: Place, wall: float, now: float) -> Checkout:
    number, started, owner, stack, session, site, _, marks = holding
    age = max(now - started, 0.0)
    frames = resolve(stack)
    description, standing = owner.describe(now)
    return Checkout(
        number=number,
        backend=backend,
        checked_out_at=wall - age,
        age=age,
        kind="session" if session else "connection",
        place=place,
        site=_label(site) if not frames else frames[0].site,
        frames=frames,
        owner=description,
        standing=standing,
        context=marks.context,
        expected=marks.expected or expected_now(owner.key()),
    )


def capacity(pool: Pool) -> float:
    """The most connections that a pool keeps out at once; infinite where nothing stops it."""
    if isinstance(pool, QueuePool):
        overflow: int = getattr(pool, "_max_overflow", 0)  # SQLAlchemy tells the size in public, not the overflow
        return pool.size() + overflow if overflow >= 0 else math.inf
    if isinstance(pool, NullPool):
        return math.inf
    if isinstance(pool, (StaticPool, AssertionPool)):
        return 1
    return pool.size if isinstance(pool, SingletonThreadPool) else math.inf


def _label(site: Site) -> str:
    return site_of(site.code) if site.code is not None else UNKNOWN_SITE


def _statistics(pool: PoolLedger) -> dict[str, SiteStatistics]:
    counts: dict[str, list[int]] = {}
    for site in pool.sites.copy().values():
        label = _label(site)
        known = counts.get(label)
        counts[label] = list(site.counts) if known is None else [a + b for a, b in zip(known, site.counts, strict=True)]
    return {label: _site_statistics(values) for label, values in counts.items() if any(values)}


def _site_statistics(counts: list[int]) -> SiteStatistics:
    samples = sum(counts)
    needed = samples - samples // 100
    seen = 0
    for index, count in enumerate(counts):
        seen += count
        if seen >= needed:
            return SiteStatistics(samples, SITE_BOUNDS[min(index, len(SITE_BOUNDS) - 1)])
    return SiteStatistics(samples, SITE_BOUNDS[-1])


def _counters(pool: PoolLedger) -> PoolCounters:
    sites = pool.all_sites()
    returned_by_gc: dict[str, int] = {}
    for site in sites:
        if site.returned_by_gc:
            label = OTHER_SITES if site is pool.other else _label(site)
            returned_by_gc[label] = returned_by_gc.get(label, 0) + site.returned_by_gc
    return PoolCounters(
        checkouts=sum(site.checkouts for site in sites),
        opened=pool.opened,
        timeouts=pool.timeouts,
        wait_seconds=pool.waited,
        closed=dict(pool.closed),
        suspects=pool.suspects.copy(),
        suspects_returned=pool.suspects_returned.copy(),
        returned_by_gc=returned_by_gc,
        use=_use([*sites, pool.irregular]),
        create=Histogram(CREATE_BOUNDS, tuple(pool.create_counts), pool.create_seconds),
    )


_USE_BUCKET = tuple(
    next((i for i, bound in enumerate(USE_BOUNDS) if fine <= bound), len(USE_BOUNDS)) for fine in SITE_BOUNDS
)


def _use(sites: list[Site]) -> Histogram:
    """The fine buckets of all sites, in the coarse ones of the metric, whose bounds are among theirs."""
    counts = [0] * (len(USE_BOUNDS) + 1)
    for site in sites:
        for bucket, count in zip((*_USE_BUCKET, len(USE_BOUNDS)), site.counts, strict=True):
            counts[bucket] += count
    return Histogram(USE_BOUNDS, tuple(counts), sum(site.seconds for site in sites))
