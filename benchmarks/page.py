"""What the page costs with many applications: python -m benchmarks.page [APPLICATIONS] [--write FILE]

By default 200 applications with 25 connections each, all of which report, five of them holding some for hours, and a day
of history. From one reading and the processes' reports to HTML, step by step; CPU time, medians. --write keeps the page,
to look at it in a browser.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks.made import LOGIN, checkout, medians, pack, process, stack

from pgleak.holders.coverage import Coverage
from pgleak.holders.join import join
from pgleak.pool.reading import Reading as Folder
from pgleak.pool.reading import Reported
from pgleak.pool.snapshot import Backend
from pgleak.postgres.activity import Place, Server
from pgleak.postgres.backends import backends
from pgleak.postgres.reader import Reading
from pgleak.settings import Thresholds
from pgleak.web import TargetStatus
from pgleak.web.index import page
from pgleak.who.diagnosis import diagnose
from pgleak.who.history import SLOT, SLOTS, History, Overview
from pgleak.who.report import report

CONNECTIONS = 25
LEAKING = 5
HELD = 8  # leaked by each of these
ROUNDS = 15
HOUR = 3600.0


def service(number: int) -> tuple[str, range]:
    """Its name and the process ids of its connections."""
    first = 1000 + number * CONNECTIONS
    return f"service-{number:03}", range(first, first + CONNECTIONS)


def session(pid: int) -> float:
    """Seconds that a connection has existed."""
    return 10 * HOUR + pid % 50


def reading(now: float, applications: int) -> Reading:
    """One server; the first applications hold connections that were not used for hours."""
    packs = []
    for number in range(applications):
        name, pids = service(number)
        ages = [int(session(pid) * 1000) for pid in pids]
        unused = [i * 10 for i in range(CONNECTIONS)]
        since = None
        if number < LEAKING:
            unused[:HELD] = [(1 + i) * 900_000 for i in range(HELD)]
            since = unused[:HELD] + [-1] * (CONNECTIONS - HELD)
        packs.append(pack(name, pids, ages, unused, since))
    places = [Place(("shop", "shop", each.application_name), each.application_name) for each in packs]
    used = applications * CONNECTIONS
    server = Server(used + 150, 3, 0, now - 1e6, superuser=False, stats_visible=True, may_use_reserved=True)
    return Reading("orders", server=server, used=used, asked=now, packs=packs, places=places)


def reported(now: float, number: int) -> Reported:
    """One application's report: it holds as many as any other, and one that leaks has not used them for hours."""
    name, pids = service(number)
    frames = stack("jobs", "worker", line=42)
    known = [Backend(pid, now - session(pid) + LOGIN, "db1:5432/shop") for pid in pids]
    held = [
        checkout(i, backend, now, 900.0 * (1 + i) if number < LEAKING else 0.1 * i, frames)
        for i, backend in enumerate(known[:HELD])
    ]
    return Reported(process(number + 1, now, held, known[HELD:], name=name), 1)


def history(now: float, one: Reading) -> History:
    """A day that climbs for those that leak."""
    kept = History()
    for slot in range(SLOTS):
        counts = {("orders", "", ""): one.used - (SLOTS - slot) // 2}
        for number, each in enumerate(one.packs):
            climb = slot // 8 if number < LEAKING else (slot * 7 + number) % 5
            counts["orders", "shop", each.application_name] = 7 + climb
        kept.add(now - (SLOTS - 1 - slot) * SLOT, counts)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("applications", nargs="?", type=int, default=200)
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    now = time.time()
    one = reading(now, options.applications)
    folder = Folder(tuple(reported(now, number) for number in range(options.applications)))
    kept = history(now, one)
    coverage = Coverage()
    statuses = [TargetStatus("orders", "db1:5432/shop", up=True, age=3.0)]

    def who() -> Overview:
        found = coverage.judge(join(backends(one, Thresholds()), folder.processes), folder, {one.name: 0.0})
        seen = report(now, [one], {"orders": "db1:5432"}, folder, found)
        return Overview(seen, diagnose(seen), kept.series())

    seen = who()
    html = page(statuses, seen, refreshes=True)
    assert f"{LEAKING * HELD} connections held for long" in html
    if options.write:
        options.write.write_text(html)
    print(
        f"{options.applications} applications, {one.used} connections, {len(html) // 1024} KiB; CPU ms, medians of {ROUNDS}"
    )
    tasks = {"who holds what": who, "page": lambda: page(statuses, seen), "both": lambda: page(statuses, who())}
    for label, spent in zip(tasks, medians(ROUNDS, *tasks.values()), strict=True):
        print(f"{label:20}{spent:8.1f}")


if __name__ == "__main__":
    main()
