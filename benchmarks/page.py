"""What the page costs with many applications: python benchmarks/page.py [APPLICATIONS] [--write FILE]

By default 200 applications with 25 connections each, five of them leaking, and a day of history. From one reading and
the processes' reports to HTML, step by step; CPU time, medians. --write keeps the page, to look at it in a browser.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pgleak.holders.join import join
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
from pgleak.postgres.activity import Place, Server
from pgleak.postgres.backends import backends
from pgleak.postgres.evidence import Packed
from pgleak.postgres.reader import Reading
from pgleak.settings import Thresholds
from pgleak.web import TargetStatus
from pgleak.web.index import page
from pgleak.who.diagnosis import diagnose
from pgleak.who.history import SLOT, SLOTS, History, Overview
from pgleak.who.report import report

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECTIONS = 25
LEAKING = 5
ROUNDS = 15
HOUR = 3600.0


def reading(now: float, applications: int) -> Reading:
    """One server; the first applications hold connections that were not used for hours."""
    packs = []
    for number in range(applications):
        pids = range(1000 + number * CONNECTIONS, 1000 + (number + 1) * CONNECTIONS)
        ages = [int((10 * HOUR + pid % 50) * 1000) for pid in pids]
        unused = [int((1 + i) * 900_000) if number < LEAKING and i < 8 else i * 10 for i in range(CONNECTIONS)]
        since = [each if number < LEAKING and i < 8 else -1 for i, each in enumerate(unused)]
        name = f"service-{number:03}"
        state = "idle in transaction" if number < LEAKING else "idle"
        packs.append(
            Packed.of_ages(
                *("shop", "shop", name, "10.0.0.1", state), session=ages, unused=unused, transaction=since, pids=pids
            )
        )
    places = [Place(("shop", "shop", pack.application_name), pack.application_name) for pack in packs]
    used = applications * CONNECTIONS
    server = Server(used + 150, 3, 0, now - 1e6, superuser=False, stats_visible=True, may_use_reserved=True)
    return Reading("orders", server=server, used=used, asked=now, packs=packs, places=places)


def process(now: float, number: int) -> Reported:
    """One leaking application's report: it holds what it has not used for hours."""
    frames = (
        Frame("shop.jobs", "run_forever", "/srv/shop/jobs.py", 42),
        Frame("shop.worker", "main", "/srv/shop/worker.py", 88),
    )
    first = 1000 + number * CONNECTIONS
    held = tuple(
        Checkout(
            i, Backend(first + i, now - 10 * HOUR - (first + i) % 50 + 0.02, "db1:5432/shop"), now - 900.0 * (1 + i),
            900.0 * (1 + i), "session", "pool", frames[0].site, frames, Owner("thread", "worker-1", "alive"),
            (Frame("shop.jobs", "run_forever", "/srv/shop/jobs.py", 40),), "GET /orders", None,
        )
        for i in range(8)
    )  # fmt: skip
    name = f"service-{number:03}"
    pool = PoolSnapshot(name, "QueuePool", name, "db1:5432/shop", 1, 30.0, 0, (), held, (), {}, PoolCounters())
    return Reported(
        ProcessSnapshot(ProcessIdentity(number + 1, now - HOUR, "b", "host", name), now, Limits(), (pool,)), 1
    )


def history(now: float, one: Reading) -> History:
    """A day that climbs for those that leak."""
    kept = History()
    for slot in range(SLOTS):
        counts = {("orders", "", ""): one.used - (SLOTS - slot) // 2}
        for number, pack in enumerate(one.packs):
            climb = slot // 8 if number < LEAKING else (slot * 7 + number) % 5
            counts["orders", "shop", pack.application_name] = 7 + climb
        kept.add(now - (SLOTS - 1 - slot) * SLOT, counts)
    return kept


def milliseconds(task: Callable[[], object]) -> float:
    spent = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        task()
        spent.append((time.thread_time() - start) * 1000)
    return statistics.median(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("applications", nargs="?", type=int, default=200)
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    now = time.time()
    one = reading(now, options.applications)
    folder = Folder(tuple(process(now, number) for number in range(LEAKING)))
    kept = history(now, one)
    statuses = [TargetStatus("orders", "db1:5432/shop", up=True, age=3.0)]

    def who() -> Overview:
        found = join(backends(one, Thresholds()), folder.processes)
        seen = report(now, [one], {"orders": "db1:5432"}, folder, found)
        return Overview(seen, diagnose(seen), kept.series())

    seen = who()
    html = page(statuses, seen, refreshes=True)
    assert f"{LEAKING * 8} connections leaked" in html
    if options.write:
        options.write.write_text(html)
    print(
        f"{options.applications} applications, {one.used} connections, {len(html) // 1024} KiB; CPU ms, medians of {ROUNDS}"
    )
    for label, task in (
        ("who holds what", who),
        ("page", lambda: page(statuses, seen)),
        ("both", lambda: page(statuses, who())),
    ):
        print(f"{label:20}{milliseconds(task):8.1f}")


if __name__ == "__main__":
    main()
