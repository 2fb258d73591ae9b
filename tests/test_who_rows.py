"""The rows of the first connections of each culprit: as many as leave every culprit on a screen of 24 rows."""

from __future__ import annotations

import io

import pytest

from pgleak.pool.snapshot import Backend, Checkout, Frame, Owner, ProcessIdentity
from pgleak.who import command
from pgleak.who.connection import Connection
from pgleak.who.diagnosis import diagnose
from pgleak.who.options import Options
from pgleak.who.report import Application, Report
from pgleak.who.room import ServerState
from pgleak.who.screen import Screen
from pgleak.who.table import HEIGHT, MEMBERS, PIDS, table

HOUR = 3600.0
PROCESS = ProcessIdentity(4711, 1_799_900_000.0, "", "web1", "shop")
NOW_AT = Frame("shop.worker", "run", "/app/shop/worker.py", 7)


def held(pid: int, line: int) -> Connection:
    backend = Backend(pid, 1_799_990_000.0, "db1:5432/shop")
    frame = Frame("shop.jobs", f"ship{line}", "/app/shop/jobs.py", line)
    checkout = Checkout(
        pid, backend, 1_799_990_000.0, 3 * HOUR, "connection", "pool", frame.site, (frame,),
        Owner("thread", "mailer", "alive"), (NOW_AT,), "", None,
    )  # fmt: skip
    return Connection(
        "db", pid, "shop", "shop", f"shop-{line}", "10.0.0.1", "idle", 4 * HOUR, 3 * HOUR, None, "", "overdue",
        process=PROCESS, pool="main", checkout=checkout, cause="overdue", limit=60.0,
    )  # fmt: skip


def report(culprits: int, each: int) -> Report:
    applications = tuple(
        Application("db", "shop", f"shop-{n}", tuple(held(1000 * n + i, n) for i in range(each)), processes=1)
        for n in range(1, culprits + 1)
    )
    return Report(1_800_000_000.0, (ServerState("db", "db1:5432", used=50, usable=97),), applications, None, {})


def shown(culprits: int, each: int, *, everything: bool = False) -> list[str]:
    seen = report(culprits, each)
    return table(seen, diagnose(seen), everything=everything)


def rows(lines: list[str]) -> int:
    return sum(line.endswith(f"jobs.py:{n} ship{n}") for line in lines for n in range(1, 20))


@pytest.mark.parametrize(("culprits", "each"), [(1, 5), (1, 3), (2, 2), (2, 1)])
def test_where_there_is_room_each_has_its_row_and_its_owner(culprits: int, each: int) -> None:
    lines = shown(culprits, each)
    assert rows(lines) == lines.count("    by thread 'mailer', now at worker.py:7 run, process 4711") == culprits * each
    assert len(lines) <= HEIGHT
    assert f"! {culprits}000    idle       4h     3h     overdue    jobs.py:{culprits} ship{culprits}" in lines


@pytest.mark.parametrize("culprits", [2, 3])
def test_more_culprits_have_fewer_rows_so_that_each_is_on_the_screen(culprits: int) -> None:
    lines = shown(culprits, 9)
    assert rows(lines) < rows(shown(1, 9)) * culprits
    first = lines[:HEIGHT]
    for n in range(1, culprits + 1):
        assert any(line.startswith(f"! 9x jobs.py:{n} ship{n}, shop-{n} on db") for line in first)
    assert rows(lines) == {2: 6, 3: 0}[culprits]  # with three, the process ids of all fill the screen


def test_a_long_list_to_end_does_not_take_the_rows_of_the_only_culprit() -> None:
    assert rows(shown(1, PIDS)) >= 3


def test_a_single_look_has_room_for_the_first_five_of_every_culprit() -> None:
    """With `--once`, into a file, through a pipe: nothing is pushed off a screen there."""
    stream = io.StringIO()
    command._say(report(4, 9), Options(), Screen(stream), stream)
    assert rows(stream.getvalue().splitlines()) == 4 * MEMBERS == 20


def test_all_has_each_connection_once() -> None:
    assert rows(shown(2, 9, everything=True)) == 18
