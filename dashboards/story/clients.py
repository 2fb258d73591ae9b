"""Clients of a server, as its rows of pg_stat_activity would show them, minute by minute."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgleak.postgres.evidence import Packed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

HOUR, DAY = 3600.0, 86400.0
_ADDRESS = "10.0.0.7"
_MOST_POOLED = 1000
LEAKED_AFTER = 60.0
"""Seconds for which a leaked connection had been in the pool before somebody took it and did not return."""


def daily(low: float, high: float) -> Callable[[float], float]:
    """Load with its peak at 14:00 and its trough at 02:00, UTC."""
    return lambda now: low + (high - low) * (0.5 - 0.5 * math.cos(2 * math.pi * ((now % DAY) / DAY - 2 / 24)))


def nightly(number: float, *, hour: int) -> Callable[[float], float]:
    """A batch that runs for the first forty minutes of one hour."""
    return lambda now: number if hour * HOUR <= now % DAY < hour * HOUR + 2400 else 0


@dataclass(slots=True)
class Client:
    """One application with a pool that follows its load, and with what it has leaked.

    ``leaks`` is in connections per hour from ``deployed`` on, the Unix time at which everything was opened anew.
    """

    name: str
    user: str
    size: Callable[[float], float]
    busy: float = 0.2  # part of the pool that is active
    database: str = "shop"
    deployed: float = math.inf
    leaks: float = 0.0
    first_pid: int = 0  # of its backends
    _opened: list[float] = field(default_factory=list)
    _leaked: list[float] = field(default_factory=list)  # when each was checked out for the last time
    _lost: float = 0.0
    _is_new: bool = False

    @property
    def leaked(self) -> list[tuple[int, float]]:
        """The backends' process ids, and when each was checked out for the last time."""
        return [(self.first_pid + _MOST_POOLED + number, since) for number, since in enumerate(self._leaked)]

    @property
    def pooled(self) -> list[tuple[int, float]]:
        """The backends' process ids, and when each was opened."""
        return [(self.first_pid + number, opened) for number, opened in enumerate(self._opened)]

    def step(self, now: float, seconds: float, random: Random) -> None:
        """Let this much time pass, up to ``now``."""
        if now >= self.deployed and not self._is_new:
            self._opened.clear()
            self._leaked.clear()
            self._is_new = True
        if now >= self.deployed:
            self._lost += self.leaks * seconds / HOUR * random.uniform(0.2, 1.8)
            while len(self._leaked) < int(self._lost):
                self._leaked.append(now - random.uniform(0, seconds))
        wanted = round(self.size(now) + random.uniform(-1, 1)) if self.size(now) > 2 else round(self.size(now))
        while len(self._opened) < wanted:
            self._opened.append(now - random.uniform(0, min(seconds, 20)))
        del self._opened[wanted:]

    def rows(self, now: float, random: Random) -> Iterator[Packed]:
        """Yield its connections by state."""
        active = round(len(self._opened) * self.busy * random.uniform(0.6, 1.4))
        young = max(now - max(self._opened, default=now), 0.0)
        pooled = self.pooled
        for state, some in (("active", pooled[:active]), ("idle", pooled[active:])):
            ages = [now - born for _, born in some]
            # A queue: every connection comes round within a minute or two.
            unused = [min(random.expovariate(1 / 15), young + 60, age) for age in ages]
            transactions = [age if state == "active" else -0.001 for age in unused]
            yield self._pack(state, [pid for pid, _ in some], ages, unused, transactions)
        ages = [now - since for _, since in self.leaked]
        pids = [pid for pid, _ in self.leaked]
        yield self._pack("idle in transaction", pids, [age + LEAKED_AFTER for age in ages], ages, ages)

    def _pack(
        self, state: str, pids: list[int], session: list[float], unused: list[float], transaction: list[float]
    ) -> Packed:
        def milliseconds(values: list[float]) -> list[int]:
            return [int(value * 1000) for value in values]

        return Packed.of_ages(
            *(self.database, self.user, self.name, _ADDRESS, state),
            session=milliseconds(session),
            unused=milliseconds(unused),
            transaction=milliseconds(transaction),
            pids=pids,
        )
