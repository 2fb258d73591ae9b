"""From what is known of connections to what is wrong: since when, how fast, when it is full, and where."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from diagnosis_support import HOUR, LOAD, SEEN, TURN, held, report
from pgleak.pool.snapshot import Frame, Owner, ProcessIdentity
from pgleak.who.diagnosis import diagnose
from pgleak.who.plain import plain
from pgleak.who.room import Limit
from pgleak.who.table import table
from pgleak.who.words import tell

if TYPE_CHECKING:
    from pgleak.pool.snapshot import HolderKind
    from pgleak.who.connection import Connection


def leaked(hours: float) -> Connection:
    return SEEN._replace(pid=int(hours * 100), age=(hours + 1) * HOUR, unused=hours * HOUR)


def test_it_says_since_when_how_fast_and_when_the_server_is_full() -> None:
    """From one look: the ages of the leaked ones are the history."""
    seen = report(*(leaked(hours) for hours in (1, 2, 3, 4, 5)), SEEN._replace(evidence=""), used=87)
    findings = diagnose(seen)
    (found,) = findings.diagnoses
    assert (found.connections, found.total, found.since, found.per_hour) == (5, 6, 5 * HOUR, 1.0)
    (outlook,) = findings.outlooks
    assert outlook.seconds == 10 * HOUR
    text = " ".join(" ".join(tell(seen, findings)).split())
    assert "shop leaks on db: 5 of its 6 connections do not come back." in text
    assert "(5 h ago), +1.0 an hour" in text
    assert "87 of 97 usable connections taken, full in 10 h if nobody acts" in text
    assert table(seen, findings)[1].endswith("full in 10 h")


def test_from_the_server_alone_it_is_a_guess_until_it_grows() -> None:
    """A pool that opened its connections at once, and has rested since: they were not used again, and are free."""
    rest = [SEEN._replace(pid=each, age=2000.0, unused=1999.0, limit=300.0) for each in range(9)]
    leak = held(99, Owner("thread", "t", "dead", 60.0))
    seen = report(*rest, leak)
    text = " ".join(" ".join(tell(seen, diagnose(seen))).split())
    assert "shop may leak on db: 9 of its 10 connections seem not to come back." in text
    assert text.index("shop leaks on db: 1 of its 10") < text.index("shop may leak")


def test_a_leak_that_has_stopped_is_told_without_a_time_to_full() -> None:
    """Twelve within 35 s and none for seven minutes: on average 115 an hour, in truth none."""
    burst = [SEEN._replace(pid=each, unused=420.0 + 3 * each, limit=60.0) for each in range(12)]
    seen = report(*burst, used=90)
    findings = diagnose(seen)
    assert findings.outlooks == ()
    text = " ".join(" ".join(tell(seen, findings)).split())
    assert "(7 min ago), no new ones: the last 7 min ago" in text
    assert "full in" not in text
    assert "no new ones: the last 7 min ago: never reused" in " ".join(" ".join(table(seen, findings)).split())
    assert plain(seen, findings)["diagnoses"][0]["per_hour"] == 0


def test_one_leak_has_one_pace_though_the_server_comes_to_see_it_in_two_ways() -> None:
    """In its first hour a session left in a transaction was never reused, and later it is stuck in its transaction."""
    left = SEEN._replace(state="idle in transaction")
    young = [left._replace(pid=age, unused=60.0 * age, limit=300.0) for age in range(5, 60)]
    left = left._replace(evidence="stuck_in_transaction", limit=HOUR)
    old = [left._replace(pid=age, transaction=60.0 * age) for age in range(60, 90)]
    (found,) = diagnose(report(*young, *old)).diagnoses
    assert found.cause.key == "left_in_transaction"
    assert found.per_hour == 60


def test_a_leak_goes_on_though_its_transactions_were_worked_in_for_long() -> None:
    """They are leaked since something was sent in them last, and not since they began."""
    left = SEEN._replace(state="idle in transaction", evidence="stuck_in_transaction", limit=900.0)
    told = [left._replace(pid=age, unused=60.0 * age, transaction=60.0 * (age + 30)) for age in range(16, 120, 5)]
    (found,) = diagnose(report(*told)).diagnoses
    assert found.per_hour == 12


def test_a_full_server_is_full_now() -> None:
    seen = report(leaked(1), leaked(2), used=99)
    assert "full now" in " ".join(tell(seen, diagnose(seen)))


def test_a_limit_of_a_role_or_a_database_may_be_nearer_than_the_servers() -> None:
    """Five an hour on the server, all of them of one role, two in one database: three limits, three times."""
    leaks = [leaked(hours)._replace(datname="shop" if hours < 3 else "stock") for hours in (1, 2, 3, 4, 5)]
    seen = report(*leaks, SEEN._replace(evidence=""), used=77)
    limits = (Limit("role", "shop", 6, 10), Limit("database", "shop", 2, 4), Limit("role", "other", 1, 2))
    seen = replace(seen, servers=(replace(seen.servers[0], limits=limits),))
    findings = diagnose(seen)
    hours = {each.limit: round(each.seconds / HOUR, 6) for each in findings.outlooks}
    assert hours == {"": 20.0, "role shop": 4.0, "database shop": 5.0}
    soonest = findings.soonest("db")
    assert soonest is not None
    assert soonest.limit == "role shop"
    text = " ".join(" ".join(tell(seen, findings)).split())
    assert "77 of 97 usable connections taken, full in 20 h if nobody acts" in text
    assert "limit role shop: 6 of 10 connections taken, full in 4 h if nobody acts" in text
    assert "limit database shop: 2 of 4 connections taken, full in 5 h if nobody acts" in text
    assert "role other" not in text
    assert "!   role shop: 6 of 10 taken, full in 4 h" in table(seen, findings)
    (server,) = plain(seen, findings)["servers"]
    assert [(each["kind"], each["full_in"]) for each in server["limits"]] == [
        ("role", 4 * HOUR), ("database", 5 * HOUR), ("role", None),
    ]  # fmt: skip


def test_a_limit_that_is_reached_is_full_now() -> None:
    seen = report(leaked(1))
    seen = replace(seen, servers=(replace(seen.servers[0], limits=(Limit("role", "shop", 1, 1),)),))
    text = " ".join(" ".join(tell(seen, diagnose(seen))).split())
    assert "limit role shop: 1 of 1 connections taken, full now" in text


def test_where_the_process_reports_the_servers_suspicion_does_not_count() -> None:
    """A last-in-first-out pool leaves its oldest connections idle: passed over, and perfectly free."""
    pooled = SEEN._replace(holder="pooled", process=ProcessIdentity(1, 0.0, "", "", "shop"), pool="shop")
    assert diagnose(report(pooled)).diagnoses == ()
    assert diagnose(report(SEEN)).diagnoses[0].cause.key == "never_reused"


def test_a_line_that_several_callers_leak_through_names_them_all() -> None:
    def called_from(function: str, line: int, number: int) -> Connection:
        each = held(number, Owner("thread", f"t{number}", "dead", 60.0))
        assert each.checkout is not None
        frames = (LOAD, Frame("shop", function, "shop.py", line))
        return each._replace(checkout=replace(each.checkout, frames=frames))

    invoices = [called_from("invoice", 12, number) for number in range(4)]
    refunds = [called_from("refund", 14, number) for number in range(4, 7)]
    seen = report(*refunds, *invoices)
    (found,) = diagnose(seen).diagnoses
    assert [(frame.function, count) for frame, count in found.callers] == [("invoice", 4), ("refund", 3)]
    text = " ".join(" ".join(tell(seen, diagnose(seen))).split())
    assert "line jobs.py:10 in jobs:load from 4x shop.py:12 in shop:invoice, 3x shop.py:14 in shop:refund" in text
    callers = plain(seen, diagnose(seen))["diagnoses"][0]["callers"]
    assert [(each["function"], each["connections"]) for each in callers] == [("invoice", 4), ("refund", 3)]


def test_two_lines_of_one_function_are_two_leaks() -> None:
    first, second = (held(number, Owner("thread", f"t{number}", "dead", 60.0)) for number in (1, 2))
    assert second.checkout is not None
    second = second._replace(checkout=replace(second.checkout, frames=(replace(LOAD, line=11), TURN)))
    found = diagnose(report(first, second)).diagnoses
    assert sorted(each.frames[0].line for each in found) == [10, 11]
    assert [each.callers for each in found] == [(), ()]


def test_what_is_used_all_the_time_is_held_for_long_and_not_leaked() -> None:
    """Code that went on and uses it still never gave it back; nobody can say that it will not."""
    elsewhere = Frame("other", "other", "other.py", 1)
    cases: tuple[tuple[HolderKind, Frame, str], ...] = (
        ("session", Frame("jobs", "load", "jobs.py", 8), "kept_between_turns"),
        ("session", elsewhere, "session_left_open"),
        ("connection", elsewhere, "handed_on"),
    )
    for kind, standing, told in cases:
        used = held(1, Owner("thread", "t", "alive"), standing)._replace(is_used=True)
        assert used.checkout is not None
        used = used._replace(checkout=replace(used.checkout, kind=kind))
        seen = report(used)
        (found,) = diagnose(seen).diagnoses
        assert (found.cause.key, found.is_leak, found.is_in_use) == (told, False, True)
        text = " ".join(" ".join(tell(seen, diagnose(seen))).split())
        assert "shop holds 1 of its 1 connection on db for long, and uses it." in text
        assert "leaks on" not in text
        assert f"{told.replace('_', ' ')}, in use" in " ".join(
            " ".join(table(seen, diagnose(seen))).replace(" !   ", " ").split()
        )


def test_leaks_come_before_what_is_held_for_long() -> None:
    stands = replace(LOAD, line=12)
    waiting = [held(number, Owner("thread", f"t{number}", "alive"), stands) for number in range(5)]
    seen = report(*waiting, held(9, Owner("thread", "t", "dead", 60.0)))
    found = diagnose(seen).diagnoses
    assert [(each.cause.key, each.is_leak) for each in found] == [("thread_ended", True), ("held_while_working", False)]
    text = " ".join(" ".join(tell(seen, diagnose(seen))).split())
    assert "shop leaks on db: 1 of its 6 connections does not come back." in text
    assert "shop holds 5 of its 6 connections on db for long." in text
    assert "say so: `with pgleak.expected_hold(...)`" in text


def test_one_piece_of_work_that_is_used_is_no_suspect() -> None:
    stands = Frame("jobs", "load", "jobs.py", 12)
    busy = held(1, Owner("thread", "t", "alive"), stands)._replace(is_used=True)
    seen = report(busy)
    assert diagnose(seen).diagnoses == ()
    text = " ".join(" ".join(tell(seen, diagnose(seen))).split())
    assert text.startswith("Nothing leaks.")
    assert "shop: 1 connection held for long is in use, for 15 min by jobs.py:10 in jobs:load: no leak" in text
    assert diagnose(report(busy._replace(cause="inherited"))).diagnoses
    for frames in ((LOAD, TURN), (replace(LOAD, is_generator=True), TURN)):
        assert busy.checkout is not None
        helped = replace(busy.checkout, kind="connection", frames=frames, standing=(replace(TURN, line=22),))
        assert diagnose(report(busy._replace(checkout=helped))).diagnoses == ()


def test_one_long_transaction_is_told_though_it_is_used_and_one_long_statement_is_not() -> None:
    """It keeps what was deleted since it began, and locks perhaps, while its code does something else."""
    stands = Frame("jobs", "load", "jobs.py", 12)
    begun = held(1, Owner("thread", "t", "alive"), stands)._replace(is_used=True, transaction=900.0, limit=60.0)
    polls = begun._replace(state="idle in transaction", unused=1.0)
    (found,) = diagnose(report(polls)).diagnoses
    assert (found.cause.key, found.is_leak, found.is_in_use) == ("held_while_working", False, True)
    assert diagnose(report(polls._replace(state="active"))).diagnoses
    assert diagnose(report(polls._replace(transaction=30.0))).diagnoses == ()
    assert diagnose(report(begun._replace(state="active", unused=890.0))).diagnoses == ()
