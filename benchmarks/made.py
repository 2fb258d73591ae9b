"""What several benchmarks make up and measure with: a server's connections, processes that report their pools, medians."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from pgleak.pool.snapshot import (
    Backend,
    Checkout,
    Frame,
    Limits,
    Owner,
    PoolCounters,
    PoolSnapshot,
    ProcessIdentity,
    ProcessSnapshot,
)
from pgleak.postgres.evidence import Packed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgleak.pool.snapshot import SiteStatistics

LOGIN = 0.02  # seconds from the server's start of a connection to its note in the application


def pack(
    name: str,
    pids: range,
    ages: list[int],
    unused: list[int],
    transactions: list[int] | None = None,
    address: str = "10.0.0.1",
) -> Packed:
    """Connections of one application from one address; ages in milliseconds."""
    state = "idle" if transactions is None else "idle in transaction"
    return Packed.of_ages(
        *("shop", "shop", name, address, state), session=ages, unused=unused, transaction=transactions or (), pids=pids
    )


def stack(*layers: str, line: int = 7) -> tuple[Frame, ...]:
    """Frames of an application's modules, the innermost first."""
    return tuple(
        Frame(f"shop.{each}", "call", f"/srv/shop/lib/shop/{each.replace('.', '/')}.py", line) for each in layers
    )


def checkout(number: int, backend: Backend, now: float, age: float, frames: tuple[Frame, ...]) -> Checkout:
    """What a living thread of a web application holds; it stands in the function that called the one that took it."""
    return Checkout(
        number, backend, now - age, age, "session", "pool", frames[0].site, frames,
        Owner("thread", f"ThreadPoolExecutor-0_{number}", "alive"), frames[1:], "GET /orders/<int:number>", None,
    )  # fmt: skip


def process(
    pid: int,
    now: float,
    checkouts: Sequence[Checkout],
    idle: Sequence[Backend] = (),
    name: str = "shop",
    sites: Mapping[str, SiteStatistics] | None = None,
    counters: PoolCounters | None = None,
) -> ProcessSnapshot:
    """One process with one pool, to the server of the first connection."""
    server = (*idle, *(each.backend for each in checkouts))[0].server
    pool = PoolSnapshot(
        name, "QueuePool", name, server, 1, 100.0, 0, tuple(idle), tuple(checkouts), (), sites or {}, counters or PoolCounters()
    )  # fmt: skip
    return ProcessSnapshot(ProcessIdentity(pid, now - 9999, "boot", "host", name), now, Limits(), (pool,))


def medians(rounds: int, *tasks: Callable[[], object]) -> list[float]:
    """Thread CPU time of each task in milliseconds; they take turns, so that whatever else happens hits all alike."""
    spent: list[list[float]] = [[] for _ in tasks]
    for _ in range(rounds):
        for times, task in zip(spent, tasks, strict=True):
            start = time.thread_time()
            task()
            times.append((time.thread_time() - start) * 1000)
    return [statistics.median(times) for times in spent]
