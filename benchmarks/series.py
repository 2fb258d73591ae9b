"""How many series applications make: python -m benchmarks.series [APPLICATIONS [PER_SERVER]]; by default 1,000, 50 on a server.

What pgleak's own functions expose is counted, with one application or server more and without; the rules are read. An
application is one role in one database here, with one pool in two processes; 5 places in its code hold connections, one
of them for too long.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import yaml
from benchmarks.rules.history import MINUTE, RECORDED_KINDS, ROOT, seconds

from pgleak.exposition import encode
from pgleak.holders import metrics as join_metrics
from pgleak.holders.join import join
from pgleak.pool import collector as pools
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
from pgleak.postgres import activity, collector
from pgleak.postgres.activity import Place, Server
from pgleak.postgres.backends import backends
from pgleak.postgres.canary import Logins
from pgleak.postgres.evidence import Packed
from pgleak.postgres.reader import Reading
from pgleak.postgres.reasons import REASONS
from pgleak.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

GROUP_BY = Settings(()).group_by
SITES = 5
SCRAPE = 15  # seconds
NOW = 1_773_162_000.0
SESSIONS = ("sessions", "sessions_abandoned", "sessions_fatal", "sessions_killed")


def reading(server: str, applications: int) -> Reading:
    """All that a server with a canary shows."""
    packs = [
        Packed.of_ages(
            *("shop", "shop", f"application{one}", "10.0.0.1", "idle"),
            session=[5000] * SITES,
            unused=[1000] * SITES,
            pids=range(10 * one + 1, 10 * one + SITES + 1),
        )
        for one in range(applications)
    ]
    places = [Place((pack.datname, pack.usename, pack.application_name), pack.application_name) for pack in packs]
    sessions = {kind: {"shop": 1} for kind in SESSIONS}
    return Reading(
        server,
        server=Server(500, 3, 0, NOW, superuser=False, stats_visible=True, may_use_reserved=True, sessions=sessions),
        applications=activity.summarise(packs, places, Settings(()).thresholds),
        overflowed=dict.fromkeys(GROUP_BY, 0),
        asked=NOW,
        packs=packs,
        places=places,
        errors=dict.fromkeys(REASONS, 0),
        last_success=NOW,
        logins=Logins(success=True),
    )


def process(application: int, number: int) -> ProcessSnapshot:
    checkouts = tuple(
        Checkout(
            site, Backend(10 * application + site + 1, NOW - 5, "db1:5432/shop"), NOW - 5, 5.0 if site else 1e5, "session",
            "pool", f"shop.module{site}:handler", (Frame(f"shop.module{site}", "handler", "module.py", 1),),
            Owner("thread", "worker", "alive"), (), "", None,
        )
        for site in range(SITES)
    )  # fmt: skip
    name = f"application{application}"
    pool = PoolSnapshot(
        name,
        "QueuePool",
        name,
        "db1:5432/shop",
        1,
        15.0,
        0,
        (),
        checkouts if number == 0 else (),
        (),
        {},
        PoolCounters(),
    )
    identity = ProcessIdentity(10 * application + number, NOW, "b", "host", name)
    return ProcessSnapshot(identity, NOW, Limits(), (pool,))


def count(families: Iterable[Metric]) -> int:
    return sum(not line.startswith(b"#") for line in encode(families, openmetrics=False).splitlines())


def server_half(applications: int) -> int:
    return count(collector.families([reading("db1", applications)], GROUP_BY))


def pool_half(applications: int) -> int:
    return count(pools.families([process(one, number) for one in range(applications) for number in range(2)]))


def joined(applications: int) -> int:
    reports = [Reported(process(one, number), 1) for one in range(applications) for number in range(2)]
    found = join(backends(reading("db1", applications)), reports, {"db1": "db1:5432"})
    return count(join_metrics.families(found))


def recorded() -> tuple[int, int, float]:
    """Return how many series the rules record for each application and each server, and samples in an hour for the first.

    Those of roles and databases are there only where these have limits of their own, and are not counted.
    """
    of_application, of_server, samples = 0, 0, 0.0
    for group in yaml.safe_load((ROOT / "dashboards" / "rules.yml").read_text())["groups"]:
        for rule in group["rules"]:
            name = rule.get("record", "")
            if re.match("server:", name):
                of_server += 1
            # What is only there while something is wrong counts for nothing.
            elif re.match("application:|evidence:", name) and "suspected" not in name:
                series = len(RECORDED_KINDS) if name.startswith("evidence:") else 1
                of_application += series
                samples += series * 60 * MINUTE / seconds(group.get("interval", "1m"))
    return of_application, of_server, samples


def main() -> None:
    applications, per_server = (*map(int, sys.argv[1:]), *(1000, 50)[len(sys.argv) - 1 :])
    servers = -(-applications // per_server)
    for_application, for_server, slow = recorded()
    rows = [
        ("server half, for each application", server_half(2) - server_half(1), applications),
        ("server half, for each server", 2 * server_half(1) - server_half(2), servers),
        ("pool half, for each application", pool_half(2) - pool_half(1), applications),
        ("who holds them, for each application", joined(2) - joined(1), applications),
        ("recorded, for each application", for_application, applications),
        ("recorded, for each server", for_server, servers),
    ]
    print("| | series each | | series |\n|---|---|---|---|")
    for name, each, times in rows:
        print(f"| {name} | {each} | x {times:,} | {each * times:,} |")
    total = sum(each * times for _, each, times in rows)
    print(f"| **all** | | | **{total:,}** |\n")
    rate = sum(each * times for _, each, times in rows[:4]) / SCRAPE + applications * slow / 3600
    print(f"{rate:,.0f} samples a second, scraped every {SCRAPE} s")


if __name__ == "__main__":
    main()
