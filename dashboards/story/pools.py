"""The pools of two of the clients, as the processes that hold them would report them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgleak.pool.snapshot import (
    CREATE_BOUNDS,
    USE_BOUNDS,
    Backend,
    Checkout,
    Frame,
    Histogram,
    Limits,
    Owner,
    PoolCounters,
    PoolSnapshot,
    ProcessIdentity,
    ProcessSnapshot,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from pgleak.pool.snapshot import OwnerState
    from story.clients import Client

_SERVER = "db1:5432/shop"


@dataclass(slots=True)
class Process:
    """One of the processes of an application; it holds every ``share``-th of what the application holds."""

    client: Client
    number: int
    share: int
    sites: Sequence[Frame]  # where connections are checked out in the ordinary way
    leak: Frame | None
    per_second: float  # checkouts
    most: float
    _counters: PoolCounters = field(default_factory=PoolCounters)

    def snapshot(self, now: float, seconds: float, random: Random) -> ProcessSnapshot:
        """Let this much time pass and return what the process reports."""
        leaked = self.client.leaked[self.number :: self.share]
        pooled = self.client.pooled // self.share
        used = min(pooled, max(1, round(pooled * self.client.busy * random.uniform(0.6, 1.4))))
        self._count(seconds, pooled, len(leaked), random)
        held = [self._checkout(n, now, random.expovariate(5), self._site(random), "alive") for n in range(used)]
        if self.leak:
            held += [self._checkout(1000 + n, now, now - since, self.leak, "dead") for n, since in enumerate(leaked)]
        idle = tuple(Backend(None, now - 600, _SERVER) for _ in range(pooled - used))
        name = self.client.name
        pool = PoolSnapshot(
            name, "QueuePool", name, _SERVER, 1, self.most / self.share, 0, idle, tuple(held), (), {}, self._counters
        )
        identity = ProcessIdentity(100 + self.number, now - 86400, "", "app", name)
        return ProcessSnapshot(identity, now, Limits(), (pool,))

    def _site(self, random: Random) -> Frame:
        return random.choice(self.sites)

    def _checkout(self, number: int, now: float, age: float, site: Frame, owner: OwnerState) -> Checkout:
        return Checkout(
            number, Backend(None, now - age - 60, _SERVER), now - age, age, "session", "pool", site.site, (site,),
            Owner("thread", "turn", owner), (), "", None,
        )  # fmt: skip

    def _count(self, seconds: float, pooled: int, leaked: int, random: Random) -> None:
        checkouts = round(self.per_second * seconds / self.share * random.uniform(0.8, 1.2))
        opened = max(pooled + leaked - self._counters.opened, 0)
        sample = [random.lognormvariate(-4, 1) for _ in range(40)]
        weight = max(checkouts // len(sample), 1)
        use = Histogram.of(USE_BOUNDS, sample * weight)
        create = Histogram.of(CREATE_BOUNDS, [random.uniform(0.004, 0.03) for _ in range(opened)])
        suspects = {self.leak.site: leaked} if self.leak and leaked else {}
        gained = PoolCounters(
            checkouts=checkouts, opened=opened, wait_seconds=checkouts * 0.0004, use=use, create=create,
            closed={"returned": 0, "recycled": 0},
        )  # fmt: skip
        total = self._counters.plus(gained)
        self._counters = PoolCounters(
            total.checkouts,
            total.opened,
            0,
            total.wait_seconds,
            total.closed,
            suspects,
            {},
            {},
            total.use,
            total.create,
        )
