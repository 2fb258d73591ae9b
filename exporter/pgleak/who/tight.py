"""Pools that have fewer connections than are asked for, and whether that is because of leaks. Pure."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgleak.who.causes import AT_WORK, causes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgleak.pool.snapshot import PoolSnapshot, ProcessIdentity
    from pgleak.who.connection import Connection
    from pgleak.who.heaps import Owned

_NEARLY_ALL = 0.8  # of what a pool has out: what is leaked, and not load, leaves none of it


@dataclass(frozen=True, slots=True)
class TightPool:
    """A pool that has none left, or in which requests wait or have waited in vain."""

    process: ProcessIdentity
    name: str
    connections_max: float
    used: int
    leaked: int  # of the used ones
    waiting: int
    timeouts: int  # since the process began
    is_full: bool

    @property
    def is_drained(self) -> bool:
        """Whether leaks leave it nothing: no load that goes by, and no larger pool, would help."""
        return self.is_full and self.leaked >= max(_NEARLY_ALL * self.used, 1)


def tight_pools(owned: Sequence[Owned], suspects: Sequence[Connection]) -> tuple[TightPool, ...]:
    """Those of an application, ``suspects`` being all of its connections that look leaked."""
    found = []
    for reported, pool in owned:
        used = sum(each.place == "pool" for each in pool.checkouts)
        is_full = _is_full(pool, used)
        if 0 < pool.connections_max < math.inf and (  # 0: its engines are gone
            pool.pending or pool.counters.timeouts or is_full
        ):
            found.append((reported.snapshot.process, pool, used, is_full))
    if not found:
        return ()
    leaked = Counter(
        (each.process, each.pool)
        for each, cause in causes_of(suspects)
        if each.checkout is not None and each.checkout.place == "pool" and not each.is_used and cause.key not in AT_WORK
    )
    return tuple(
        TightPool(
            process, pool.name, pool.connections_max, used, leaked[process, pool.name], pool.pending,
            pool.counters.timeouts, is_full,
        )
        for process, pool, used, is_full in found
    )  # fmt: skip


def _is_full(pool: PoolSnapshot, used: int) -> bool:
    """Of several engines under one name, some one is where a request waits, and others have waited in vain before."""
    return used >= pool.connections_max or bool(pool.engines > 1 and pool.pending and pool.counters.timeouts)
