"""What it costs to say who holds each of a server's connections: python benchmarks/join.py [BACKENDS] [PROCESSES]

By default 5,000 backends, and 64 processes that report 78 connections each, half of them held, a tenth of those for too
long. Beside it: making single backends of the packed rows, and the metrics of the result. Thread CPU time, medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING

from pgleak.holders.coverage import Coverage
from pgleak.holders.join import join
from pgleak.holders.metrics import families
from pgleak.pool.reading import Reading as Folder
from pgleak.pool.reading import Reported
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
from pgleak.postgres.activity import Place
from pgleak.postgres.backends import backends
from pgleak.postgres.evidence import Packed
from pgleak.postgres.reader import Reading

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 21
NOW = 1_800_000_000.0


def reading(pids: range) -> Reading:
    """What the server says: connections of one application from eight hosts, opened one per second."""
    packs = []
    for host in range(8):
        mine = pids[host::8]
        ages = [(pids.stop - pid) * 1000 for pid in mine]
        packs.append(
            Packed.of_ages("shop", "shop", "shop", f"10.0.0.{host}", "idle", session=ages, unused=ages, pids=mine)
        )
    return Reading("db", asked=NOW, packs=packs, places=[Place(("shop", "shop", "shop"), "shop")] * len(packs))


def process(number: int, pids: range, last: int) -> Reported:
    """What one process says."""
    known = [Backend(pid, NOW - (last - pid) + 0.02, "db1:5432/shop") for pid in pids]
    frames = tuple(Frame(f"shop.{layer}", "call", f"/srv/shop/{layer}.py", 7) for layer in ("orders", "api", "wsgi"))
    checkouts = tuple(
        Checkout(
            index, backend, NOW - 5, 900.0 if index % 10 == 0 else 5.0, "session", "pool", frames[0].site, frames,
            Owner("thread", "worker", "alive"), frames[1:], "", None,
        )
        for index, backend in enumerate(known[::2])
    )  # fmt: skip
    pool = PoolSnapshot(
        "shop", "QueuePool", "shop", "db1:5432/shop", 1, 100.0, 0, tuple(known[1::2]), checkouts, (), {}, PoolCounters()
    )
    identity = ProcessIdentity(number, NOW - 9999, "boot", "host", "shop")
    return Reported(ProcessSnapshot(identity, NOW, Limits(), (pool,)), 1.0)


def milliseconds(task: Callable[[], object]) -> float:
    spent = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        task()
        spent.append((time.thread_time() - start) * 1000)
    return statistics.median(spent)


def main() -> None:
    given = [int(text) for text in sys.argv[1:3]]
    count, workers = (*given, *(5000, 64)[len(given) :])
    pids = range(1000, 1000 + count)
    one = reading(pids)
    share = max(count // workers, 1)
    processes = [process(n, pids[n * share : (n + 1) * share], pids.stop) for n in range(workers)]
    rows = backends(one)
    found = join(rows, processes)
    claimed = sum(held.claim is not None for held in found.held)
    assert claimed == share * workers, claimed
    coverage, folder = Coverage(), Folder(tuple(processes))
    print(f"{count} backends, {workers} processes, {claimed} connections reported; CPU ms, medians of {ROUNDS}")
    for label, task in (
        ("rows to backends", lambda: backends(one)),
        ("join", lambda: join(rows, processes)),
        ("coverage", lambda: coverage.judge(found, folder)),
        ("metrics", lambda: list(families(found))),
    ):
        print(f"{label:20}{milliseconds(task):8.1f}")


if __name__ == "__main__":
    main()
