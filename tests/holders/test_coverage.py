"""Connections that no process knows are called unclaimed where that is sure, and not a moment earlier."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import watching
from holders.processes import READ, Fleet, of, outlived, seen, settled, url
from pgleak.exporter import Exporter
from pgleak.holders.coverage import FORGOTTEN, Coverage
from pgleak.holders.join import join

if TYPE_CHECKING:
    from conftest import Connect
    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.holders.join import Join

NAME = "coverage-test"
KNOWN = [re.compile(NAME)]


def holders(found: Join) -> list[str]:
    return sorted(held.holder for held in of(found, NAME))


def test_a_process_that_does_not_report_makes_its_connections_unknown(
    postgres16: EmbeddedPostgres, fleet: Fleet
) -> None:
    """From one moment nobody can say whether a process is missing or a connection is."""
    fleet.start(url(postgres16, NAME), "in_use", "pooled")
    fleet.start(url(postgres16, NAME), "in_use", reports=False)
    found = settled(fleet, postgres16, expected={NAME: ["in_use", "pooled", "unknown"]})
    assert Coverage(learning=0, patience=0, rest=0).judge(found, outlived(fleet, found), READ) == found


def rested(found: Join, seconds: float, state: str = "idle") -> Join:
    """What no process knows has gone unused for so long, as if the test had waited."""
    held = [
        each if each.claim else each._replace(backend=each.backend._replace(unused=seconds, state=state))
        for each in found.held
    ]
    return replace(found, held=tuple(held))


def test_where_all_processes_reported_for_a_while_a_stranger_is_unclaimed(
    postgres16: EmbeddedPostgres, fleet: Fleet, connect: Connect
) -> None:
    now = 0.0
    coverage = Coverage(clock=lambda: now)

    def look(at: float, *expected: str, unused: float = 0.0) -> None:
        nonlocal now
        now = at
        found = settled(fleet, postgres16, expected={NAME: [each.replace("unclaimed", "unknown") for each in expected]})
        found = rested(found, unused)
        assert holders(coverage.judge(found, outlived(fleet, found), {"db0": at})) == sorted(expected)

    running = fleet.start(url(postgres16, NAME), "in_use")
    for at in (0.0, 300.0, 601.0):
        look(at, "in_use")
    connect(postgres16, application_name=NAME)
    look(602.0, "in_use", "unknown", unused=100.0)  # its process may be just ending
    look(611.9, "in_use", "unknown", unused=109.9)
    look(613.0, "in_use", "unclaimed", unused=111.0)
    running.communicate(timeout=20)
    look(630.0, "unknown", unused=128.0)  # nobody reports any more, so nobody is missing


def test_what_somebody_uses_is_not_leaked_and_not_every_process_reports(
    postgres16: EmbeddedPostgres, fleet: Fleet, connect: Connect
) -> None:
    """A job that is started each night by another way, without PGLEAK_DIR, on the machine of those that report."""
    now = 0.0
    coverage = Coverage(clock=lambda: now)
    fleet.start(url(postgres16, NAME), "in_use")
    known = settled(fleet, postgres16, expected={NAME: ["in_use"]})
    for now in (0.0, 601.0):
        coverage.judge(known, fleet.report(), {"db0": now})
    connect(postgres16, application_name=NAME)
    both = settled(fleet, postgres16, expected={NAME: ["in_use", "unknown"]})
    report = outlived(fleet, both)

    def look(at: float, unused: float, state: str = "idle") -> str:
        nonlocal now
        now = at
        found = coverage.judge(rested(both, unused, state), report, {"db0": at})
        return next(held.holder for held in of(found, NAME) if not held.claim)

    assert look(610.0, unused=0.0) == "unknown"
    assert look(665.0, unused=55.0) == "unknown"  # in the midst of something, perhaps
    assert look(675.0, unused=65.0, state="active") == "unknown"
    assert look(675.0, unused=65.0) == "unclaimed"
    assert look(690.0, unused=5.0) == "unknown"  # it was used meanwhile
    assert look(790.0, unused=105.0) == "unknown"  # and its origin is not known to report as a whole any more


def test_the_same_reading_looked_at_again_confirms_nothing(
    postgres16: EmbeddedPostgres, fleet: Fleet, connect: Connect
) -> None:
    """Pages that are asked for each second share a reading, and what it shows may be closed since."""
    now = time.monotonic()  # stands still but for the steps below, however slow the machine is
    options = watching.settings(watching.target(postgres16, "db"), pool_dir=fleet.folder, reporting_applications=KNOWN)
    with contextlib.closing(Exporter(options, lambda: now)) as exporter:
        fleet.start(url(postgres16, NAME), "in_use")
        closed = connect(postgres16, application_name=NAME)
        outlived(fleet, settled(fleet, postgres16, expected={NAME: ["in_use", "unknown"]}))

        def seen_as() -> list[str]:
            page = exporter.overview()
            assert page is not None
            (ours,) = (each for each in page.report.applications if each.name == NAME)
            return sorted(each.holder for each in ours.connections)

        assert seen_as() == ["in_use", "unknown"]
        closed.close()
        settled(fleet, postgres16, expected={NAME: ["in_use"]})
        now += 12.0
        assert seen_as() == ["in_use", "unknown"]
        now += 12.0
        assert seen_as() == ["in_use"]


def test_a_connection_is_not_unclaimed_before_each_process_could_report_it(
    postgres16: EmbeddedPostgres, fleet: Fleet, connect: Connect
) -> None:
    """One look is enough for `pgleak who --once`, but not for a connection that is younger than the last reports."""
    fleet.start(url(postgres16, NAME), "in_use")
    before = fleet.report()
    connect(postgres16, application_name=NAME)
    found = settled(fleet, postgres16, expected={NAME: ["in_use", "unknown"]})
    coverage = Coverage(KNOWN, patience=0, rest=0)
    assert holders(coverage.judge(found, before, READ)) == ["in_use", "unknown"]
    assert holders(coverage.judge(found, outlived(fleet, found), READ)) == ["in_use", "unclaimed"]


def test_what_could_not_be_read_keeps_strangers_from_being_called_unclaimed(
    postgres16: EmbeddedPostgres, fleet: Fleet, connect: Connect
) -> None:
    fleet.start(url(postgres16, NAME), "in_use")
    connect(postgres16, application_name=NAME)
    found = settled(fleet, postgres16, expected={NAME: ["in_use", "unknown"]})
    coverage = Coverage(KNOWN, patience=0, rest=0)
    assert holders(coverage.judge(found, outlived(fleet, found), READ)) == ["in_use", "unclaimed"]
    (file,) = fleet.folder.glob("*.state")
    shutil.copy(file, fleet.folder / f"77-{'0' * 32}.state")
    assert fleet.report().skipped
    assert coverage.judge(found, fleet.report(), READ) == found


def test_a_process_that_hangs_may_have_opened_what_it_has_not_reported(
    postgres16: EmbeddedPostgres, fleet: Fleet, connect: Connect
) -> None:
    fleet.start(url(postgres16, NAME), "in_use")
    fleet.start(url(postgres16, NAME), "in_use")
    hanging = fleet.report().processes[0]
    connect(postgres16, application_name=NAME)
    found = settled(fleet, postgres16, expected={NAME: ["in_use", "in_use", "unknown"]})
    report = outlived(fleet, found)
    coverage = Coverage(KNOWN, patience=0, rest=0)
    assert holders(coverage.judge(found, report, READ)) == ["in_use", "in_use", "unclaimed"]
    others = [each for each in report.processes if each.snapshot.process != hanging.snapshot.process]
    report = replace(report, processes=(replace(hanging, silence=60.0), *others))
    assert holders(coverage.judge(found, report, READ)) == ["in_use", "in_use", "unknown"]


def test_an_address_that_was_not_seen_for_hours_is_learned_anew(
    postgres16: EmbeddedPostgres, fleet: Fleet, connect: Connect
) -> None:
    """Containers come and go, and the next one that gets the address need not report."""
    now = 0.0
    coverage = Coverage(learning=600.0, patience=0, rest=0, clock=lambda: now)
    fleet.start(url(postgres16, NAME), "in_use")
    found = settled(fleet, postgres16, expected={NAME: ["in_use"]})
    connect(postgres16, application_name=NAME)
    settled(fleet, postgres16, expected={NAME: ["in_use", "unknown"]})
    both = seen(postgres16)
    stranger = join([each for each in both if each.pid not in {held.backend.pid for held in found.held}], ())
    stranger = replace(stranger, reported=found.reported)
    elsewhere = join([each._replace(client_addr="10.0.0.9") for each in both], fleet.report().processes)
    elsewhere = replace(elsewhere, held=tuple(held for held in elsewhere.held if held.claim))
    report = outlived(fleet, stranger)
    coverage.judge(found, report, READ)
    now += 601
    coverage.judge(found, report, READ)
    assert holders(coverage.judge(stranger, report, READ)) == ["unclaimed"]
    now += FORGOTTEN - 1
    coverage.judge(elsewhere, report, READ)
    assert holders(coverage.judge(stranger, report, READ)) == ["unclaimed"]
    now += FORGOTTEN + 1
    coverage.judge(elsewhere, report, READ)
    assert holders(coverage.judge(stranger, report, READ)) == ["unknown"]
