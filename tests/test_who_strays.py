"""What a process holds for too long and no server shows: ended by the server, or hidden behind a pooler."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from benchmarks.made import checkout, process, stack

import servers
import watching
from holders.processes import Fleet, url
from pgleak.exporter import Exporter
from pgleak.holders.join import join
from pgleak.pool.reading import Reading as Folder
from pgleak.pool.reading import Reported
from pgleak.pool.snapshot import Backend, Owner
from pgleak.postgres.activity import Place, Server
from pgleak.postgres.backends import backends
from pgleak.postgres.evidence import Packed
from pgleak.postgres.reader import Reading
from pgleak.settings import Thresholds
from pgleak.who.diagnosis import Findings, diagnose
from pgleak.who.report import Report
from pgleak.who.report import report as report_of
from pgleak.who.room import ServerState
from pgleak.who.table import table
from pgleak.who.words import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.pool.snapshot import ProcessSnapshot

NAME = "stray-shop"
NOW = 1_800_000_000.0
SILENT = 12.0  # seconds since the server was read


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "state", [])
    yield fleet
    fleet.close()


def looked(server: EmbeddedPostgres, fleet: Fleet, until: Callable[[Findings], bool]) -> tuple[Report, Findings]:
    """One look, as soon as it is as expected."""
    one = watching.target(server, name="db")
    seen: list[tuple[Report, Findings]] = []
    exporter = Exporter(watching.settings(one, pool_dir=fleet.folder))

    def look() -> bool:
        report = exporter.report(time.monotonic() + 10)
        seen[:] = [(report, diagnose(report))]
        return until(seen[0][1])

    try:
        servers.wait_until(look)
    finally:
        exporter.close()
    return seen[0]


def numbers(findings: Findings) -> list[tuple[int, bool]]:
    return sorted((each.connections, each.ended) for each in findings.diagnoses)


def test_slots_held_on_connections_that_were_terminated_have_a_verdict_of_their_own(
    postgres16: EmbeddedPostgres, fleet: Fleet
) -> None:
    """As after the SQL that `who` prints: the server is free of them, the pool is not."""
    process = fleet.start(url(postgres16, NAME), "overdue", "overdue", "overdue", "overdue")
    report, findings = looked(postgres16, fleet, lambda found: numbers(found) == [(4, False)])
    pids = [each.pid for each in findings.diagnoses[0].members][:3]
    servers.run_sql(postgres16, *(f"SELECT pg_terminate_backend({pid})" for pid in pids))
    report, findings = looked(postgres16, fleet, lambda found: numbers(found) == [(1, False), (3, True)])
    (ended,) = (each for each in findings.diagnoses if each.ended)
    assert sorted(each.pid or 0 for each in ended.members) == sorted(pid or 0 for pid in pids)
    assert ended.frames[0].function == "take"
    assert {each.cause.key for each in findings.diagnoses} == {"function_left_it_open"}
    text = " ".join(" ".join(tell(report, findings)).split())
    verdict = f"connections that the server has ended: restart process {process.pid}"
    assert f"{NAME} on db: 3 slots of pool " in text
    assert verdict in text
    assert f"{NAME} leaks on db: 1 of its 1 connection does not come back." in text
    shown = " ".join(" ".join(table(report, findings)).split())
    assert "1 suspect connection, 3 slots held on ended connections" in shown
    assert verdict in shown
    assert "unnest" not in shown


def test_after_a_restart_of_the_server_nobody_says_that_nothing_leaks(new_postgres: NewPostgres, fleet: Fleet) -> None:
    server = new_postgres(16)
    fleet.start(url(server, NAME), "overdue", "overdue")
    looked(server, fleet, lambda found: numbers(found) == [(2, False)])
    server.restart("immediate")
    report, findings = looked(server, fleet, lambda found: numbers(found) == [(2, True)])
    assert report.unmatched == {}
    text = " ".join(" ".join(tell(report, findings)).split())
    assert "2 slots of pool " in text
    assert "Nothing leaks" not in text


def test_an_alias_is_known_from_a_look_before_and_from_other_processes(new_postgres: NewPostgres, fleet: Fleet) -> None:
    """A socket's folder says nothing to whom the server is a host and a port."""
    server = new_postgres(16)
    alias = (
        f"postgresql+psycopg2://postgres@/postgres?host={server.socket_dir}&port={server.port}&application_name={NAME}"
    )
    fleet.start(alias, "overdue", "overdue")
    options = watching.settings(watching.target(server, name="db"), pool_dir=fleet.folder)
    with contextlib.closing(Exporter(options)) as exporter:

        def look() -> list[tuple[int, bool]]:
            return numbers(diagnose(exporter.report(time.monotonic() + 10)))

        servers.wait_until(lambda: look() == [(2, False)])
        server.restart("immediate")
        servers.wait_until(lambda: look() == [(2, True)])
    _, findings = looked(server, fleet, lambda found: numbers(found) == [(2, False)])
    assert [each.server for each in findings.diagnoses] != ["db"]  # from one look, nobody knows what the alias means
    fleet.start(alias, "in_use")
    looked(server, fleet, lambda found: numbers(found) == [(2, True)])


def test_what_is_held_on_a_server_that_is_not_watched_is_told_by_the_processes(
    postgres16: EmbeddedPostgres, new_postgres: NewPostgres, fleet: Fleet
) -> None:
    """To watch one more server must not make blind for what the processes alone would tell."""
    fleet.start(url(postgres16, NAME), "overdue", "overdue")
    _, findings = looked(new_postgres(16), fleet, lambda found: numbers(found) == [(2, False)])
    (found,) = findings.diagnoses
    assert found.server == f"127.0.0.1:{postgres16.port}"
    assert found.frames[0].function == "take"
    assert not any(each.end for each in found.members)
    assert findings.outlooks == ()


def test_a_full_server_whose_leak_has_stopped_is_full_now() -> None:
    server = ServerState("db", "db1:5432", used=97, usable=97)
    seen = Report(0.0, (server,), (), None, {})
    assert table(seen, diagnose(seen))[1].endswith("full now")


def test_what_is_healthy_and_gone_is_no_verdict(new_postgres: NewPostgres, fleet: Fleet) -> None:
    server = new_postgres(16)
    fleet.start(url(server, NAME), "in_use", "pooled")
    server.restart("immediate")
    report, findings = looked(server, fleet, lambda _: True)
    assert findings.diagnoses == ()
    assert sum(report.unmatched.values()) == 2
    told = tell(report, findings)
    assert told[0].startswith("Nothing leaks.")
    assert "or just closed" in " ".join(" ".join(told).split())


def leaking(pid: int, first: int, *ages: float, name: str = "shop", address: str = "db1:5432") -> ProcessSnapshot:
    """A process whose threads have ended with connections that they took when they were opened, ages in seconds."""
    held = [
        checkout(first + i, Backend(first + i, NOW - age, f"{address}/shop"), NOW, age, stack("jobs"))
        for i, age in enumerate(ages)
    ]
    dead = [replace(each, owner=Owner("thread", "worker", "dead", each.age)) for each in held]
    return process(pid, NOW, dead, name=name)


def seen_late(*processes: ProcessSnapshot) -> Report:
    """What the processes report now, beside the server as it was: of `shop`, the connections 1, 2, 3 and 10."""
    packs = [
        Packed.of_ages(
            "shop",
            user,
            "shop",
            "10.0.0.1",
            "idle",
            session=[88_000] * len(pids),
            unused=[88_000] * len(pids),
            pids=pids,
        )
        for user, pids in (("batch", range(10, 11)), ("shop", range(1, 4)))
    ]
    places = [Place(("shop", each.usename, "shop"), "shop") for each in packs]
    server = Server(100, 3, 0, NOW - 1e6, superuser=False, stats_visible=True, may_use_reserved=True)
    one = Reading("db", server=server, used=4, asked=NOW - SILENT, packs=packs, places=places)
    addresses, folder = {"db": "db1:5432"}, Folder(tuple(Reported(each, 0.0) for each in processes))
    found = join(backends(one, Thresholds()), folder.processes, addresses, {"db": one.asked})
    return report_of(NOW, [one], addresses, folder, found)


def rows(report: Report) -> list[tuple[str, str, str, int]]:
    return [(each.server, each.usename, each.name, len(each.connections)) for each in report.applications]


@pytest.mark.parametrize("address", ["db1:5432", "alias:5432"])
def test_what_was_opened_after_the_server_was_read_counts_with_the_rest_of_its_pool(address: str) -> None:
    """The page shows a reading of the last 15 s, and a leak may be certain after 5: it is one leak of one application."""
    seen = seen_late(leaking(42, 1, 100.0, 100.0, 100.0, 7.0, 6.0, address=address), leaking(43, 10, 100.0))
    assert rows(seen) == [("db", "shop", "shop", 5), ("db", "batch", "shop", 1)]
    assert [(each.usename, each.connections) for each in diagnose(seen).diagnoses] == [("shop", 5), ("batch", 1)]
    assert [each.end for each in seen.applications[0].connections if each.pid in {4, 5}] == ["", ""]


def test_a_process_that_began_after_the_server_was_read_joins_its_application() -> None:
    seen = seen_late(leaking(42, 1, 100.0, 100.0, 100.0), leaking(43, 10, 100.0), leaking(44, 4, 7.0, 6.0))
    assert sorted((name, user) for _, user, name, _ in rows(seen)) == [("shop", "batch"), ("shop", "shop")]
    assert sum(number for *_, number in rows(seen)) == 6


@pytest.mark.parametrize(("name", "address"), [("new", "db1:5432"), ("shop", "alias:5432")])
def test_what_cannot_be_placed_before_the_server_is_read_again_is_no_application(name: str, address: str) -> None:
    seen = seen_late(leaking(44, 4, 7.0, 6.0, name=name, address=address))
    assert rows(seen) == [("db", "shop", "shop", 3), ("db", "batch", "shop", 1)]
    assert seen.unmatched == {}


def test_the_page_shows_a_leak_that_goes_on_between_two_scrapes_once(
    postgres16: EmbeddedPostgres, fleet: Fleet
) -> None:
    fleet.start(url(postgres16, NAME), "owner_dead", "owner_dead")
    settings = watching.settings(watching.target(postgres16, name="db"), pool_dir=fleet.folder)
    with contextlib.closing(Exporter(settings)) as exporter:

        def leaked() -> list[tuple[str, int]]:
            seen = exporter.overview()
            assert seen is not None
            return [(each.usename, each.connections) for each in seen.findings.diagnoses]

        servers.wait_until(lambda: leaked() == [("postgres", 2)])
        fleet.start(url(postgres16, NAME), "owner_dead")
        servers.wait_until(lambda: sum(number for _, number in leaked()) == 3)
        assert leaked() == [("postgres", 3)]
