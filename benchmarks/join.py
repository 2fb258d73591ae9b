"""What it costs to say who holds each of a server's connections: python -m benchmarks.join [BACKENDS] [PROCESSES]

By default 5,000 backends, and 64 processes that report 78 connections each, half of them held, a tenth of those for too
long. Beside it: making single backends of the packed rows, and the metrics of the result. Thread CPU time, medians.
"""

from __future__ import annotations

import sys

from benchmarks.made import LOGIN, checkout, medians, pack, process, stack

from pgleak.holders.coverage import Coverage
from pgleak.holders.join import join
from pgleak.holders.metrics import families
from pgleak.pool.reading import Reading as Folder
from pgleak.pool.reading import Reported
from pgleak.pool.snapshot import Backend
from pgleak.postgres.activity import Place
from pgleak.postgres.backends import backends
from pgleak.postgres.reader import Reading

ROUNDS = 21
NOW = 1_800_000_000.0
FRAMES = stack("orders", "api", "wsgi")


def reading(pids: range) -> Reading:
    """What the server says: connections of one application from eight hosts, opened one per second."""
    packs = []
    for host in range(8):
        ages = [(pids.stop - pid) * 1000 for pid in pids[host::8]]
        packs.append(pack("shop", pids[host::8], ages, ages, address=f"10.0.0.{host}"))
    return Reading("db", asked=NOW, packs=packs, places=[Place(("shop", "shop", "shop"), "shop")] * len(packs))


def reported(number: int, pids: range, last: int) -> Reported:
    """What one process says."""
    known = [Backend(pid, NOW - (last - pid) + LOGIN, "db1:5432/shop") for pid in pids]
    held = [
        checkout(index, backend, NOW, 900.0 if index % 10 == 0 else 5.0, FRAMES)
        for index, backend in enumerate(known[::2])
    ]
    return Reported(process(number, NOW, held, known[1::2]), 1.0)


def main() -> None:
    given = [int(text) for text in sys.argv[1:3]]
    count, workers = (*given, *(5000, 64)[len(given) :])
    pids = range(1000, 1000 + count)
    one = reading(pids)
    share = max(count // workers, 1)
    processes = [reported(n, pids[n * share : (n + 1) * share], pids.stop) for n in range(workers)]
    rows = backends(one)
    found = join(rows, processes)
    claimed = sum(held.claim is not None for held in found.held)
    assert claimed == share * workers, claimed
    coverage, folder = Coverage(), Folder(tuple(processes))
    print(f"{count} backends, {workers} processes, {claimed} connections reported; CPU ms, medians of {ROUNDS}")
    tasks = {
        "rows to backends": lambda: backends(one),
        "join": lambda: join(rows, processes),
        "coverage": lambda: coverage.judge(found, folder, {one.name: 0.0}),
        "metrics": lambda: list(families(found)),
    }
    for label, spent in zip(tasks, medians(ROUNDS, *tasks.values()), strict=True):
        print(f"{label:20}{spent:8.1f}")


if __name__ == "__main__":
    main()
