"""What it costs to read and add up the state files of 64 workers: python benchmarks/merge.py

Each worker holds 10 connections with full stacks, keeps 5 idle and has statistics of 20 call sites. The files are really
locked. Medians, beside the least that any reader has to do: open the files and read the bytes.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pgleak.pool import envelope, reading
from pgleak.pool.collector import families
from pgleak.pool.encoding import encode
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
    SiteStatistics,
)
from pgleak.pool.statefile import StateFile

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS = 64


def worker(number: int, held: int = 10, idle: int = 5, sites: int = 20) -> ProcessSnapshot:
    """The snapshot of one busy worker."""
    now = time.time()
    server = "db1.internal:5432/shop"
    stacks = [
        tuple(
            Frame(f"shop.{area}.{layer}", f"{area}_{layer}", f"/srv/shop/lib/shop/{area}/{layer}.py", line)
            for line, layer in enumerate(("repository", "service", "endpoint", "middleware"), 100)
        )
        for area in ("orders", "payments", "stock", "mail", "search")
    ]
    checkouts = tuple(
        Checkout(
            number=index,
            backend=Backend(number * 100 + index, now - 500, server),
            checked_out_at=now - index,
            age=float(index),
            kind="session",
            place="pool",
            site=stacks[index % 5][0].site,
            frames=stacks[index % 5],
            owner=Owner("thread", f"ThreadPoolExecutor-0_{index}", "alive"),
            standing=stacks[index % 5][1:],
            context="GET /orders/<int:number>",
            expected=None,
        )
        for index in range(held)
    )
    names = [
        *(frames[0].site for frames in stacks),
        *(f"shop.module{index}:handler" for index in range(sites - len(stacks))),
    ]
    pool = PoolSnapshot(
        name="shop",
        pool_class="QueuePool",
        application_name="shop",
        server=server,
        engines=1,
        connections_max=15.0,
        pending=0,
        idle=tuple(Backend(number * 100 + 50 + index, now - 900, server) for index in range(idle)),
        checkouts=checkouts,
        orphans=(),
        sites={name: SiteStatistics(1000, 0.05) for name in names},
        counters=PoolCounters(
            checkouts=100_000, suspects=dict.fromkeys(names, 1), returned_by_gc=dict.fromkeys(names, 2)
        ),
    )
    return ProcessSnapshot(ProcessIdentity(number, now - 5000, "boot", "host", "shop"), now, Limits(), (pool,))


def fill(folder: Path, workers: int = WORKERS) -> list[StateFile]:
    """State files of that many workers, alive as long as the caller keeps them."""
    files = []
    for number in range(workers):
        file = StateFile(folder)
        file.write(worker(number + 1), time.monotonic())
        files.append(file)
    return files


def touch(folder: Path) -> None:
    """The least: open each file, read the bytes, see that they are whole."""
    for name in os.listdir(folder):  # noqa: PTH208  as the reader does it
        if name.endswith(".state"):
            descriptor = os.open(folder / name, os.O_RDONLY)
            envelope.read(descriptor)
            os.close(descriptor)


def merge(folder: Path) -> None:
    """Files to what the metrics are made of."""
    assert len(reading.read(folder).processes) == WORKERS


def scrape(folder: Path) -> None:
    """Files to metric families."""
    found = reading.read(folder)
    list(families([each.snapshot for each in found.processes], found.ended))


def medians(folder: Path, *tasks: Callable[[Path], None], rounds: int = 15) -> list[float]:
    """Thread CPU time in milliseconds, interleaved."""
    spent: list[list[float]] = [[] for _ in tasks]
    for _ in range(rounds):
        for index, task in enumerate(tasks):
            start = time.thread_time()
            task(folder)
            spent[index].append((time.thread_time() - start) * 1000)
    return [statistics.median(times) for times in spent]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = fill(folder)
        size = len(encode(worker(1)))
        floor, merged, scraped = medians(folder, touch, merge, scrape)
        for file in files:
            file.close()
    print(f"{WORKERS} workers, {size} bytes each; CPU ms, medians")
    for label, value in (("open and read, the floor", floor), ("merge", merged), ("merge and families", scraped)):
        print(f"{label:28}{value:8.1f}{value / floor:8.2f} x")


if __name__ == "__main__":
    main()
