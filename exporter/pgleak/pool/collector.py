"""From snapshots to metric families: one process's, or those of all workers of an application added up."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from pgleak.pool import metrics
from pgleak.pool.snapshot import HELD_BOUNDS, OTHER_SITES, Histogram, PoolCounters
from pgleak.pool.suspects import judge, piled_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client.core import Metric

    from pgleak.pool.snapshot import Checkout, PoolSnapshot, ProcessSnapshot
    from pgleak.spec import Spec

SITES = 20  # with a series of their own, per pool


class PoolCollector(Collector):
    """Put this on the application's own registry: `REGISTRY.register(pgleak.PoolCollector())`.

    `source` gives the snapshots of the processes that live; by default this one's, or where PGLEAK_DIR is set those of all
    processes that share it. Never fails a scrape, so it raises TypeError at once for a source that cannot be called.
    """

    def __init__(self, source: Callable[[], Sequence[ProcessSnapshot]] | None = None) -> None:
        if source is not None and not callable(source):
            raise TypeError(f"PoolCollector() takes a function or nothing, not {type(source).__name__}")
        self._source = source

    def describe(self) -> Iterable[Metric]:
        """Names only: without this a registry would collect at registration."""
        return [spec.empty() for spec in metrics.IN_PROCESS_HALF]

    def collect(self) -> Iterable[Metric]:
        try:
            return list(_this_worker() if self._source is None else families(self._source()))
        except Exception:  # noqa: BLE001 - it would fail the scrape of everything else in the process
            return []


def _this_worker() -> Iterator[Metric]:
    from pgleak.pool.api import snapshot  # noqa: PLC0415 - the API and the merging build on this module
    from pgleak.pool.merged import collect_worker  # noqa: PLC0415

    return collect_worker(snapshot)


def families(live: Sequence[ProcessSnapshot], ended: Mapping[str, PoolCounters] | None = None) -> Iterator[Metric]:
    """Gauges of the processes that live, added up; counters of those that ended are kept. Ages are the greatest."""
    ended = ended or {}
    pools: dict[str, list[PoolSnapshot]] = {name: [] for name in ended}
    for snapshot in live:
        for pool in snapshot.pools:
            pools.setdefault(pool.name, []).append(pool)
    yield from _gauges(pools)
    yield from _counters({name: _total(parts, ended.get(name)) for name, parts in pools.items()})
    yield from _sites(live, pools)
    yield metrics.PROCESSES.family([((), len(live))])
    yield metrics.ERRORS.family([((), sum(snapshot.errors for snapshot in live))])


def _total(parts: Sequence[PoolSnapshot], ended: PoolCounters | None) -> PoolCounters:
    total = ended or PoolCounters()
    for part in parts:
        total = total.plus(part.counters)
    return total


def _gauges(pools: Mapping[str, Sequence[PoolSnapshot]]) -> Iterator[Metric]:
    def each(spec: Spec, value: Callable[[PoolSnapshot], float]) -> Metric:
        return spec.family(((name,), sum(map(value, parts))) for name, parts in pools.items())

    used = {name: sum(_in(part, "pool") for part in parts) for name, parts in pools.items()}
    idle = {name: sum(len(part.idle) for part in parts) for name, parts in pools.items()}
    yield metrics.CONNECTIONS.family(
        sample for name in pools for sample in (((name, "idle"), idle[name]), ((name, "used"), used[name]))
    )
    yield each(metrics.CONNECTIONS_MAX, lambda part: part.connections_max)
    possible: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    for name, parts in pools.items():
        for part in parts:
            address, _, _ = part.server.rpartition("/")  # less the database
            possible[name, address, part.application_name] += part.connections_max
    yield metrics.SERVER_CONNECTIONS_MAX.family(possible.items())
    yield each(metrics.PENDING, lambda part: part.pending)
    yield each(metrics.ORPHANED, lambda part: len(part.orphans) + _in(part, "orphaned"))
    yield each(metrics.DETACHED, lambda part: _in(part, "detached"))
    yield each(metrics.ENGINES, lambda part: part.engines)
    # what was inherited is suspect while it lies idle, too
    ages = {
        name: [checkout.age for part in parts for checkout in part.checkouts if checkout.place != "inherited"]
        for name, parts in pools.items()
    }
    yield metrics.OLDEST_CHECKOUT.family(((name,), max(held, default=0.0)) for name, held in ages.items())
    held = ((name, Histogram.of(HELD_BOUNDS, held)) for name, held in ages.items())
    yield _histogram(metrics.HELD, held, count="_gcount", total="_gsum")


def _in(pool: PoolSnapshot, place: str) -> int:
    return sum(checkout.place == place for checkout in pool.checkouts)


def _counters(totals: Mapping[str, PoolCounters]) -> Iterator[Metric]:
    yield metrics.CHECKOUTS.family(((name,), total.checkouts) for name, total in totals.items())
    yield metrics.OPENED.family(((name,), total.opened) for name, total in totals.items())
    yield metrics.CLOSED.family(
        ((name, reason), count) for name, total in totals.items() for reason, count in total.closed.items()
    )
    yield metrics.TIMEOUTS.family(((name,), total.timeouts) for name, total in totals.items())
    yield metrics.WAIT.family(((name,), total.wait_seconds) for name, total in totals.items())
    yield _histogram(metrics.USE, ((name, total.use) for name, total in totals.items()))
    yield _histogram(metrics.CREATE, ((name, total.create) for name, total in totals.items()))
    yield _by_site(metrics.SUSPECTS, {name: total.suspects for name, total in totals.items()})
    yield _by_site(metrics.SUSPECTS_RETURNED, {name: total.suspects_returned for name, total in totals.items()})
    yield _by_site(metrics.RETURNED_BY_GC, {name: total.returned_by_gc for name, total in totals.items()})


def _by_site(spec: Spec, counts: Mapping[str, Mapping[str, int]]) -> Metric:
    return spec.family(((name, site), count) for name, sites in counts.items() for site, count in sites.items())


def _sites(live: Sequence[ProcessSnapshot], pools: Mapping[str, Sequence[PoolSnapshot]]) -> Iterator[Metric]:
    held: Counter[tuple[str, str, str]] = Counter()
    for name, parts in pools.items():
        checkouts = [checkout for part in parts for checkout in part.checkouts]
        shown = _greatest(checkouts)
        for checkout in checkouts:
            held[name, checkout.site if checkout.site in shown else OTHER_SITES, checkout.owner.state] += 1
    yield metrics.HELD_CONNECTIONS.family(held.items())
    overdue = Counter((verdict.pool, verdict.checkout.site) for snapshot in live for verdict in judge(snapshot))
    # a site that was suspect once shows its fall to 0, not a gap
    for snapshot in live:
        for pool in snapshot.pools:
            for site in pool.counters.suspects:
                overdue.setdefault((pool.name, site), 0)
    yield metrics.OVERDUE.family(overdue.items())
    unused: Counter[tuple[str, str]] = Counter()
    for name, parts in pools.items():
        made = Counter({each.site: 0 for part in parts for each in part.made})  # with 0, likewise
        for part in parts:
            for each in piled_in(part):
                made[each.site] += each.unused
        most = {site for site, _ in made.most_common(SITES)}
        for site, count in made.items():
            unused[name, site if site in most else OTHER_SITES] += count
    yield metrics.UNUSED_ENGINES.family(unused.items())


def _greatest(checkouts: Iterable[Checkout]) -> set[str]:
    return {site for site, _ in Counter(checkout.site for checkout in checkouts).most_common(SITES)}


def _histogram(
    spec: Spec, samples: Iterable[tuple[str, Histogram]], *, count: str = "_count", total: str = "_sum"
) -> Metric:
    family = spec.empty()
    bounds = [floatToGoString(bound) for bound in (*spec.buckets, float("inf"))]
    for name, histogram in samples:
        for bound, number in zip(bounds, accumulate(histogram.counts), strict=True):
            family.add_sample(f"{spec.name}_bucket", {"pool": name, "le": bound}, number)
        family.add_sample(f"{spec.name}{count}", {"pool": name}, histogram.count)
        family.add_sample(f"{spec.name}{total}", {"pool": name}, histogram.sum)
    return family
