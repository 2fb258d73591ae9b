"""The whole story as OpenMetrics text with timestamps, for ``promtool tsdb create-blocks-from openmetrics``."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from pgleak.exposition import encode
from pgleak.holders import metrics as holders
from pgleak.holders.join import join
from pgleak.pool import collector as pools
from pgleak.pool.reading import Reported
from pgleak.pool.snapshot import Frame
from pgleak.postgres import activity, collector
from pgleak.postgres.activity import Server
from pgleak.postgres.backends import backends
from pgleak.postgres.canary import Logins
from pgleak.postgres.reader import Reading
from pgleak.postgres.reasons import REASONS
from pgleak.settings import Settings
from story.clients import DAY, HOUR, Client, daily, nightly
from story.pools import Process

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

END = 1_773_162_000.0
"""When the story is told, as Unix time: a Tuesday at 17:00 UTC."""
DEPLOYED = END - 21 * HOUR
BEGIN = DEPLOYED - 28 * HOUR  # the record of the week that ended a day ago needs a day more than is shown
REPORTED = (
    END - DAY - HOUR
)  # from then on processes report: pools are shown for a day, and nothing looks back beyond that
STEP = 120.0  # between two scrapes
JOB, JOB_OF_PROBES = "pgleak", "pgleak-each"

GROUPS = Settings(()).group_by
_LIMITS = {"orders": Server(500, 3, 0, BEGIN - 9 * DAY, superuser=False, stats_visible=True, may_use_reserved=False)}
_LIMITS["billing"] = Server(200, 3, 0, BEGIN - 40 * DAY, superuser=False, stats_visible=True, may_use_reserved=False)
_ADDRESSES = {"orders": "db1:5432", "billing": "db2:5432"}
_SHOP_SITES = [Frame("shop.views", "show_orders", "views.py", 31), Frame("shop.views", "place_order", "views.py", 44)]
_LEAK = Frame("shop.jobs", "ship_next_order", "jobs.py", 42)


def _clients() -> dict[str, list[Client]]:
    return {
        "orders": [
            Client("shop", "shop", lambda _: 119, deployed=DEPLOYED, leaks=257 / 30),
            Client("search", "search", lambda _: 48, 0.1),
            Client("checkout-api", "checkout", daily(34, 58), 0.3),
            Client("mailer", "mailer", lambda _: 24, 0.05),
            Client("nightly-export", "export", nightly(20, hour=2), 0.9),
            Client("pgleak", "pgleak", lambda _: 1, 1.0, "postgres"),
        ],
        "billing": [
            Client("invoices", "invoices", daily(25, 60), 0.3, "billing"),
            Client("ledger", "ledger", lambda _: 30, 0.2, "billing"),
            Client("pgleak", "pgleak", lambda _: 1, 1.0, "postgres"),
        ],
    }


def lines(begin: float = BEGIN, step: float = STEP, *, twice: bool = False) -> Iterator[str]:
    """Yield the text line by line; ends with the marker of OpenMetrics. The same story each time.

    With ``twice``, what is about servers was scraped by ``/probe`` as well.
    """
    random = Random(1)
    clients = _clients()
    for number, client in enumerate(client for connected in clients.values() for client in connected):
        client.first_pid = 2000 * (number + 1)
    shop, api = clients["orders"][0], clients["orders"][2]
    processes = [Process(shop, number, 4, _SHOP_SITES, _LEAK, 55, 480) for number in range(4)]
    paying = [Frame("checkout.api", "pay", "api.py", 12)]
    processes += [Process(api, number, 2, paying, None, 30, 80) for number in range(2)]
    for number in range(int((END - begin) / step) + 1):
        now = begin + number * step
        readings = []
        for server, connected in clients.items():
            for client in connected:
                client.step(now, step, random)
            readings.append(reading(server, connected, now, random))
        for each in readings:
            scraped = text(collector.families([each], GROUPS))
            yield from stamped(scraped, now)
            if twice:
                yield from stamped(scraped, now, JOB_OF_PROBES, instance=each.name)
        if now < REPORTED:
            continue
        reports = [process.snapshot(now, step, random) for process in processes]
        yield from stamped(text([*pools.families(reports), _process_start(now)]), now)
        connections = [backend for each in readings for backend in backends(each)]
        joined = join(connections, [Reported(report, 1) for report in reports], _ADDRESSES)
        yield from stamped(text(holders.families(joined)), now)
    yield "# EOF"


def reading(server: str, clients: Sequence[Client], now: float, random: Random) -> Reading:
    """Return what a read of this server gives at this moment; nothing is wrong with it."""
    packs = [pack for client in clients for pack in client.rows(now, random) if pack.size]
    places = [
        activity.Place((pack.datname, pack.usename, pack.application_name), pack.application_name) for pack in packs
    ]
    return Reading(
        server,
        duration=random.uniform(0.009, 0.016),
        ended=now,
        server=_LIMITS[server],
        used=activity.used(packs),
        applications=activity.summarise(packs, places, Settings(()).thresholds),
        asked=now,
        packs=packs,
        places=places,
        errors=dict.fromkeys(REASONS, 0),
        last_success=now - 2,
        logins=Logins(success=True),
    )


def _process_start(now: float) -> Metric:
    """What every client library exposes; here of the application, which started anew with the deploy."""
    family = Metric("process_start_time_seconds", "", "gauge")
    family.add_sample(family.name, {}, DEPLOYED if now >= DEPLOYED else BEGIN - DAY)
    return family


def text(families: Iterable[Metric]) -> list[str]:
    """Return the samples of one scrape, a line each."""
    return [line for line in encode(families, openmetrics=True).decode().splitlines() if not line.startswith("#")]


def stamped(lines: Iterable[str], now: float, job: str = JOB, instance: str = "pgleak:10432") -> Iterator[str]:
    """Yield the samples of one scrape as Prometheus would have stored them: with job and instance, and their moment."""
    labels = f'job="{job}",instance="{instance}"'
    for line in lines:
        name, brace, rest = line.partition("{")
        if brace:
            yield f"{name}{{{labels},{rest} {now:.0f}"
        else:
            name, _, value = line.partition(" ")
            yield f"{name}{{{labels}}} {value} {now:.0f}"
