"""Snapshots and state files as processes write them, and what a folder of them adds up to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pgleak.pool.merged import collect_folder
from pgleak.pool.snapshot import (
    Backend,
    Checkout,
    EngineSite,
    Expected,
    Frame,
    Limits,
    Owner,
    PoolCounters,
    PoolSnapshot,
    ProcessIdentity,
    ProcessSnapshot,
    SiteStatistics,
)

if TYPE_CHECKING:
    from pathlib import Path

SITE = "shop.orders:load"
FRAME = Frame("shop.orders", "load", "/srv/shop/orders.py", 12)


def a_checkout(number: int = 1, age: float = 3.0) -> Checkout:
    return Checkout(
        number, Backend(4711, 1000.0, "db:5432/shop"), 2000.0, age, "session", "pool", SITE, (FRAME, FRAME),
        Owner("thread", "worker-1", "alive"), (FRAME,), "GET /orders", Expected("report", 900.0),
    )  # fmt: skip


def a_pool(name: str = "shop", checkouts: int = 5, held: int = 1) -> PoolSnapshot:
    return PoolSnapshot(
        name=name,
        pool_class="QueuePool",
        application_name="shop",
        server="db:5432/shop",
        engines=1,
        connections_max=float("inf"),
        pending=2,
        idle=(Backend(4712, 1000.5, "db:5432/shop"), Backend(None, 1001.0, "")),
        checkouts=tuple(a_checkout(number) for number in range(held)),
        orphans=(Backend(4713, 999.0, "db:5432/shop"),),
        sites={SITE: SiteStatistics(40, 0.05)},
        made=(EngineSite((FRAME,), 3, 1),),
        counters=PoolCounters(
            checkouts=checkouts, opened=3, wait_seconds=0.5, closed={"returned": 1}, suspects={SITE: 2}
        ),
    )


def a_snapshot(*pools: PoolSnapshot, pid: int = 42) -> ProcessSnapshot:
    return ProcessSnapshot(ProcessIdentity(pid, 900.0, "boot", "host", "shop"), 2003.0, Limits(), pools or (a_pool(),))


def state_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.state"))


def metrics_of(folder: Path) -> dict[str, float]:
    """Every sample without its labels, those of one name added up."""
    totals: dict[str, float] = {}
    for family in collect_folder(folder):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0) + sample.value
    return totals


def truncate(path: Path) -> None:
    os.truncate(path, 40)
