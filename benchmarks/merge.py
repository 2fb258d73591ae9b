"""What it costs to read and add up the state files of 64 workers: python -m benchmarks.merge

Each worker holds 10 connections with full stacks, keeps 5 idle and has statistics of 20 call sites. The files are really
locked. Medians, beside the least that any reader has to do: open the files and read the bytes.
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.made import checkout, medians, process, stack

from pgleak.pool import envelope, reading
from pgleak.pool.collector import families
from pgleak.pool.encoding import encode
from pgleak.pool.snapshot import Backend, PoolCounters, ProcessSnapshot, SiteStatistics
from pgleak.pool.statefile import StateFile

WORKERS = 64
ROUNDS = 15
SERVER = "db1.internal:5432/shop"
LAYERS = ("repository", "service", "endpoint", "middleware")
STACKS = [
    stack(*(f"{area}.{layer}" for layer in LAYERS), line=100)
    for area in ("orders", "payments", "stock", "mail", "search")
]


def worker(number: int, held: int = 10, idle: int = 5, sites: int = 20) -> ProcessSnapshot:
    """The snapshot of one busy worker."""
    now = time.time()
    first = number * 100
    checkouts = [
        checkout(index, Backend(first + index, now - 500, SERVER), now, float(index), STACKS[index % len(STACKS)])
        for index in range(held)
    ]
    names = [frames[0].site for frames in STACKS]
    names += [f"shop.module{index}:handler" for index in range(sites - len(names))]
    return process(
        number,
        now,
        checkouts,
        [Backend(first + 50 + index, now - 900, SERVER) for index in range(idle)],
        sites={name: SiteStatistics(1000, 0.05) for name in names},
        counters=PoolCounters(
            checkouts=100_000, suspects=dict.fromkeys(names, 1), returned_by_gc=dict.fromkeys(names, 2)
        ),
    )


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


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = fill(folder)
        size = len(encode(worker(1)))
        floor, merged, scraped = medians(ROUNDS, *(partial(task, folder) for task in (touch, merge, scrape)))
        for file in files:
            file.close()
    print(f"{WORKERS} workers, {size} bytes each; CPU ms, medians")
    for label, value in (("open and read, the floor", floor), ("merge", merged), ("merge and families", scraped)):
        print(f"{label:28}{value:8.1f}{value / floor:8.2f} x")


if __name__ == "__main__":
    main()
