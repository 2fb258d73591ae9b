"""What `/metrics` says of who holds the connections, when a folder of state files lies beside the server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import watching
from holders.processes import url
from pgleak.exporter import Exporter
from pgleak.holders.claims import HOLDERS
from pgleak.holders.join import Join, Unplaced
from pgleak.holders.metrics import NAMES, families
from pgleak.pool.snapshot import ProcessIdentity
from servers import wait_until

if TYPE_CHECKING:
    from conftest import Connect
    from holders.processes import Fleet
    from pgleak.demo.embedded import EmbeddedPostgres

NAME = "joined"


def test_a_scrape_tells_the_holders_of_applications_that_report_and_of_no_other(
    postgres: EmbeddedPostgres, fleet: Fleet, connect: Connect
) -> None:
    fleet.start(url(postgres, NAME), "in_use", "overdue", "pooled")
    connect(postgres, application_name="silent")
    exporter = Exporter(watching.settings(watching.target(postgres), pool_dir=fleet.folder))
    try:
        wait_until(lambda: watching.total(watching.scrape(exporter), "pgleak_overdue_backends") == 2, 15)
        found = watching.scrape(exporter)
    finally:
        exporter.close()
    held = {
        holder: watching.value(found, "pgleak_backends", server="db", application_name=NAME, holder=holder)
        for holder in HOLDERS
    }
    assert held == {**dict.fromkeys(HOLDERS, 0), "overdue": 2, "pooled": 1}
    assert watching.total(found, "pgleak_backends") == watching.total(
        found, "pgleak_connections", application_name=NAME
    )
    assert watching.value(found, "pgleak_overdue_backends", application_name=NAME, site="__main__:take") == 2
    assert watching.total(found, "pgleak_unmatched_connections", application_name=NAME) == 0


def test_one_target_alone_is_not_joined(postgres16: EmbeddedPostgres, fleet: Fleet) -> None:
    """`/probe` is asked once per target: the folder would be told as many times."""
    exporter = Exporter(watching.settings(watching.target(postgres16), pool_dir=fleet.folder))
    try:
        names = {family.name for family in exporter.families(time.monotonic() + 8, "db")}
    finally:
        exporter.close()
    assert "pgleak_connections" in names
    assert "pgleak_backends" not in names


def test_names_that_only_processes_tell_are_bounded() -> None:
    process = ProcessIdentity(1, 0.0, "boot", "host", "shop")
    unplaced = tuple(
        Unplaced(process, f"made-up-{number}", "db:1", number + 1, "pooler") for number in range(NAMES + 50)
    )
    told = Join((), unplaced, frozenset(each.application_name for each in unplaced))
    found = [sample for family in families(told) for sample in family.samples]
    names = {sample.labels["application_name"] for sample in found}
    assert len(names) == NAMES + 1
    assert "made-up-149" in names, "those with most of them stay"
    assert sum(sample.value for sample in found) == sum(each.connections for each in unplaced)
    rest = {sample.labels["reason"]: sample.value for sample in found if sample.labels["application_name"] == "(other)"}
    assert rest["pooler"] == sum(range(1, 51))
