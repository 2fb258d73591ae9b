"""What `pgleak who` says of what was found: in words, as a table, as JSON."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diagnosis_support import AT, HOUR, SEEN, held, report
from pgleak.holders.join import Held
from pgleak.pool.snapshot import EngineSite, Frame, Owner
from pgleak.postgres.backends import ServerBackend
from pgleak.who.connection import Quiet
from pgleak.who.diagnosis import Findings, diagnose
from pgleak.who.heaps import Heap
from pgleak.who.notes import notes
from pgleak.who.phrases import duration
from pgleak.who.plain import plain
from pgleak.who.report import Application, Report
from pgleak.who.room import ServerState
from pgleak.who.table import HEIGHT, table
from pgleak.who.words import tell


def test_one_row_for_a_line_of_code_however_many_it_leaks() -> None:
    seen = report(*(held(number, Owner("thread", "t", "dead", 60.0)) for number in range(1000, 1060)))
    lines = table(seen, diagnose(seen))
    assert sum(line.startswith("! 60x jobs.py:10 load") for line in lines) == 1
    assert len(lines) <= HEIGHT
    assert "unnest(array[1000, 1001, " in " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= 80


def test_how_full_the_server_is_is_said_before_anybody_knows_how_fast() -> None:
    seen = report(SEEN, used=53)
    text = " ".join(" ".join(tell(seen, diagnose(seen))).split())
    assert "too early to say how fast server 53 of 97 usable connections taken cause" in text


def test_a_full_server_is_said_where_nothing_leaks_too() -> None:
    well = [SEEN._replace(evidence="")] * 12
    for used, told in (
        (97, "db: 97 of 97 usable connections taken, full now; most, 12, by shop. Nothing leaks."),
        (78, "db: 78 of 97 usable connections taken; most, 12, by shop. Nothing leaks."),
        (77, "Nothing leaks."),
    ):
        seen = report(*well, used=used)
        assert " ".join(" ".join(tell(seen, diagnose(seen))).split()).startswith(told)
    leak = report(SEEN, *well, used=97)
    assert " ".join(tell(leak, diagnose(leak))).count("97 of 97") == 1


def test_from_the_server_alone_the_states_are_told_and_the_exporter_is_known() -> None:
    young = SEEN._replace(evidence="", state="idle in transaction", unused=50.0, transaction=60.0)
    seen = report(young, young)
    own = Application("db", "pgleak", "pgleak", (SEEN._replace(evidence="", application_name="pgleak"),))
    seen = Report(seen.at, seen.servers, (*seen.applications, own), None, {})
    lines = table(seen, diagnose(seen))
    assert "  shop  (shop@db)  2 connections: 2 idle in transaction, oldest 60 s" in lines
    assert "  pgleak  (pgleak@db)  1 connection: the exporter itself" in lines


def test_what_is_not_judged_yet_is_said_and_nobody_says_that_nothing_leaks() -> None:
    left = SEEN._replace(evidence="", state="idle in transaction", unused=89.0, transaction=89.0, limit=300.0)
    thread = Owner("thread", "t", "alive")
    busy = held(1, thread)._replace(holder="in_use", cause=None, evidence="", limit=1000.0)
    for young, how in ((left, "idle in a transaction, the oldest 89 s; judged after 5 min"),
                       (busy, "held, the oldest 15 min; judged after 16 min")):  # fmt: skip
        seen = report(*[young] * 12)
        text = " ".join(" ".join(tell(seen, diagnose(seen))).split())
        assert f"shop: not judged yet: 12 are {how}" in text
        assert "Nothing leaks" not in text
        assert "Nothing looks leaked so far." in text
        assert "nothing looks leaked so far" in table(seen, diagnose(seen))[0]
    ignored = report(left._replace(limit=0.0))
    assert tell(ignored, diagnose(ignored))[0].startswith("Nothing leaks.")


def test_a_server_that_cannot_be_read_comes_with_what_to_do() -> None:
    down = ServerState("db", "db1:5432", "role_limit: too many connections for role")
    seen = Report(0.0, (down,), (), None, {})
    assert "raise the CONNECTION LIMIT of the role" in " ".join(" ".join(tell(seen, diagnose(seen))).split())


def test_names_cannot_move_a_terminals_cursor() -> None:
    bad = SEEN._replace(usename="\x1b[2Jx", client_addr="10.0.0.1\r")
    seen = Report(0.0, (), (Application("db", "\x1b[2Jx", "shop\x07", (bad,)),), None, {})
    for line in (*table(seen, diagnose(seen), everything=True), *tell(seen, diagnose(seen))):
        assert line.isprintable() or not line


def test_json_has_numbers_or_null_and_nothing_else_for_what_is_not_known() -> None:
    seen = report(SEEN._replace(age=None, unused=None, state="(hidden)", evidence=""))
    (application,) = plain(seen, diagnose(seen))["applications"]
    assert (application["connections"][0]["age"], application["connections"][0]["owner"]) == (None, None)


def test_durations_have_two_units_at_most() -> None:
    assert [duration(each) for each in (0.4, 119, 120, 5990, 6000, 9600, 36_000, 260_000, 3_000_000)] == [
        "0 s", "119 s", "2 min", "99 min", "1 h 40 min", "2 h 40 min", "10 h", "3 d", "34 d",
    ]  # fmt: skip


def test_what_is_longer_reads_longer() -> None:
    """In a list beside each other, 104 s as `1 min` would be less than 88 s; and 119.6 s are neither 119 nor 120."""
    assert [duration(each) for each in (59.7, 88, 104, 119.4, 119.6, 179.4)] == [
        "60 s", "88 s", "104 s", "119 s", "2 min", "2 min",
    ]  # fmt: skip
    ages = (SEEN._replace(age=each, unused=each) for each in (88.0, 104.0, 119.6))
    rows = [line.split() for line in table(report(*ages), Findings((), ()), everything=True)]
    assert [row[3] for row in rows if row[:2] == ["!", "7"]] == ["88s", "104s", "2m"]


def test_the_table_says_who_called_the_line() -> None:
    """Where one helper takes all connections, the line to change is its caller's."""
    helper = Frame("db", "one", "db.py", 14)
    called = [Frame("jobs", "turn", "jobs.py", line) for line in (20, 20, 30, 40)]
    takers = [held(number, Owner("thread", "t", "alive"), helper) for number, _ in enumerate(called)]
    members = [
        each._replace(checkout=replace(each.checkout, frames=(helper, caller)))
        for each, caller in zip(takers, called, strict=True)
        if each.checkout is not None
    ]
    for count, told in (
        (2, "2x db.py:14 one < jobs.py:20 turn, shop"),
        (4, "4x db.py:14 one < 2x jobs.py:20 turn, 1x jobs.py:30 turn, ..., shop"),
    ):
        seen = report(*members[:count])
        assert told in " ".join(" ".join(table(seen, diagnose(seen))).replace(" !   ", " ").split())


@pytest.mark.parametrize(("once_used", "told"), [(9, False), (10, True)])
def test_what_an_alert_may_have_spoken_of_is_told_though_the_pools_have_it(once_used: int, *, told: bool) -> None:
    """The server sees that it is never used again; the pools, that nobody holds it: at rest, or an engine per call in many processes."""
    backends = [
        ServerBackend("db", pid, AT - HOUR, "shop", "shop", "shop", "shop", "", "idle", HOUR, None, evidence, 300.0)
        for pid, evidence in enumerate(["never_reused"] * once_used + ["passed_over", ""])
    ]
    held_ = [Held(each, "pooled") for each in backends]
    quiet = Quiet(held_, AT, {})
    for connections in (quiet, tuple(quiet)):
        seen = replace(report(), applications=(Application("db", "shop", "shop", connections),))
        assert diagnose(seen).diagnoses == ()
        note = f"{once_used} of its {once_used + 2} connections lie in its pools and were used once and never again"
        assert any(note in each for each in notes(seen)) == told
        line = EngineSite((Frame("web", "make", "web.py", 7),), once_used, once_used)
        pile = Heap("shop", line, (HOUR,) * once_used, 60.0)
        seen = replace(seen, applications=(replace(seen.applications[0], heaps=(pile,)),))
        assert not any("used once and never again" in each for each in notes(seen))  # they are told to be leaked
