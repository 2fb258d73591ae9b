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
from story.clients import LEAKED_AFTER

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
        pooled = self.client.pooled[self.number :: self.share]
        used = min(len(pooled), max(1, round(len(pooled) * self.client.busy * random.uniform(0.6, 1.4))))
        self._count(seconds, len(pooled), len(leaked), random)
        held = [
            self._checkout(Backend(pid, born, _SERVER), now, random.expovariate(5), self._site(random), "alive")
            for pid, born in pooled[:used]
        ]
        if self.leak:
            held += [
                self._checkout(Backend(pid, since - LEAKED_AFTER, _SERVER), now, now - since, self.leak, "dead")
                for pid, since in leaked
            ]
        idle = tuple(Backend(pid, born, _SERVER) for pid, born in pooled[used:])
        name = self.client.name
        pool = PoolSnapshot(
            name, "QueuePool", name, _SERVER, 1, self.most / self.share, 0, idle, tuple(held), (), {}, self._counters
        )
        identity = ProcessIdentity(100 + self.number, now - 86400, "", "app", name)
        return ProcessSnapshot(identity, now, Limits(), (pool,))

    def _site(self, random: Random) -> Frame:
        return random.choice(self.sites)

    def _checkout(self, backend: Backend, now: float, age: float, site: Frame, owner: OwnerState) -> Checkout:
        assert backend.pid is not None
        by = Owner("thread", "turn", owner, age if owner == "dead" else 0.0)  # its turn was over at once
        return Checkout(
            backend.pid, backend, now - age, age, "session", "pool", site.site, (site,), by, (), "", None
        )  # fmt: skip

    def _count(self, seconds: float, pooled: int, leaked: int, random: Random) -> None:
        checkouts = round(self.per_second * seconds / self.share * random.uniform(0.8, 1.2))
        opened = max(pooled + leaked - self._counters.opened, 0)
        sample = Histogram.of(USE_BOUNDS, [random.lognormvariate(-4, 1) for _ in range(40)])
        weight = max(checkouts // sample.count, 1)
        use = Histogram(USE_BOUNDS, tuple(count * weight for count in sample.counts), sample.sum * weight)
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
