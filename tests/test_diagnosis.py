"""From what is known of connections to what is said of them: since when, how fast, when it is full."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pgleak.holders.join import Held
from pgleak.pool.snapshot import Backend, Checkout, Expected, Frame, Owner, ProcessIdentity
from pgleak.postgres.backends import ServerBackend
from pgleak.who.causes import cause_of
from pgleak.who.connection import Connection, Quiet
from pgleak.who.diagnosis import Findings, diagnose
from pgleak.who.notes import notes
from pgleak.who.phrases import duration
from pgleak.who.plain import plain
from pgleak.who.report import Application, Report
from pgleak.who.room import Limit, ServerState
from pgleak.who.table import HEIGHT, table
from pgleak.who.words import tell

if TYPE_CHECKING:
    from pgleak.pool.snapshot import HolderKind

HOUR = 3600.0
AT = 1_800_000_000.0
SEEN = Connection(
    "db", 7, "shop", "shop", "shop", "10.0.0.1", "idle", 9 * HOUR, 8 * HOUR, None, "never_reused", "unknown"
)


def report(*connections: Connection, used: int = 30, usable: int = 97) -> Report:
    server = ServerState("db", "db1:5432", used=used, usable=usable)
    return Report(AT, (server,), (Application("db", "shop", "shop", connections),), None, {})


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


LOAD, TURN = Frame("jobs", "load", "jobs.py", 10), Frame("jobs", "turn", "jobs.py", 20)


def cause_at(
    *standing: Frame,
    took: tuple[Frame, ...] = (LOAD, TURN),
    kind: HolderKind = "session",
    expected: Expected | None = None,
    owner: Owner = Owner("thread", "t", "alive"),  # noqa: B008 - frozen
) -> str:
    """Of one that a living thread holds for long, by where that stands now."""
    checkout = Checkout(
        1, Backend(7, 0.0, "db/x"), 0.0, 900.0, kind, "pool", took[0].site, took, owner, standing, "", expected,
    )  # fmt: skip
    process = ProcessIdentity(1, 0.0, "", "", "shop")
    cause = cause_of(SEEN._replace(holder="overdue", cause="overdue", checkout=checkout, process=process))
    assert cause is not None
    return cause.key


def test_where_the_owner_stands_tells_why_it_holds() -> None:
    assert cause_at(replace(LOAD, line=8)) == "kept_between_turns"
    assert cause_at(replace(LOAD, line=12)) == "held_while_working"
    assert cause_at() == "session_left_open"
    assert cause_at(kind="connection") == "function_left_it_open"


def test_what_a_function_took_that_has_ended_is_its_callers_or_forgotten() -> None:
    """A loop that called it and stands above that line has gone on to the next turn: whoever still has it lost it."""
    later, earlier = replace(TURN, line=22), replace(TURN, line=18)
    assert cause_at(Frame("bank", "ask", "bank.py", 1), later) == "left_to_caller"
    assert cause_at(earlier) == "kept_between_turns"
    assert cause_at(later, kind="connection") == "function_left_it_open"
    assert cause_at(replace(LOAD, line=12), replace(TURN, line=25), kind="connection") == "function_left_it_open"
    assert cause_at(earlier, kind="connection") == "function_left_it_open"
    further = replace(TURN, function="main", line=40)
    assert cause_at(replace(further, line=41), took=(LOAD, TURN, further), kind="connection") == "function_left_it_open"


def test_a_server_in_the_main_module_is_not_still_at_work_with_what_a_request_took() -> None:
    main = replace(TURN, function="<module>")
    assert cause_at(main, took=(LOAD, main)) == "session_left_open"
    assert cause_at(main, took=(LOAD, main), kind="connection") == "function_left_it_open"
    assert cause_at(replace(main, line=22), took=(LOAD, main)) == "left_to_caller"
    assert cause_at(replace(main, line=18), took=(LOAD, main)) == "kept_between_turns"


def test_a_generator_or_a_comprehension_takes_for_the_code_that_runs_it() -> None:
    """A context manager that waits at its yield is not on the stack, and has not ended either."""
    manager = replace(LOAD, is_generator=True)
    for inner in (manager, replace(LOAD, function="turn.<listcomp>"), replace(LOAD, function="<lambda>")):
        assert cause_at(replace(TURN, line=22), took=(inner, TURN), kind="connection") == "held_while_working"
        assert cause_at(replace(TURN, line=18), took=(inner, TURN), kind="connection") == "kept_between_turns"
    assert cause_at(took=(manager,), kind="connection") == "generator_left_it_open"
    assert cause_at(took=(manager, TURN), kind="connection") == "generator_left_it_open"
    assert cause_at(took=(manager,)) == "session_left_open"


def test_a_statement_of_many_lines_is_no_loop() -> None:
    """Taken in an argument on line 10, of a call that begins on line 8 and runs still."""
    assert cause_at(replace(LOAD, line=8, end=12)) == "held_while_working"
    assert cause_at(replace(LOAD, line=8, end=9)) == "kept_between_turns"


def test_expected_work_excuses_the_work_and_not_what_it_left_behind() -> None:
    expected = Expected("report", 60.0)
    assert cause_at(replace(LOAD, line=12), expected=expected) == "expected_hold_exceeded"
    assert cause_at(replace(TURN, line=22), expected=expected) == "expected_hold_exceeded"
    assert cause_at(expected=expected) == "session_left_open"
    assert cause_at(kind="connection", expected=expected) == "function_left_it_open"


def test_what_is_in_a_transaction_was_not_left_by_an_engine_per_call() -> None:
    (found,) = diagnose(report(SEEN._replace(state="idle in transaction"))).diagnoses
    assert found.cause.key == "left_in_transaction"


def held(number: int, owner: Owner, *standing: Frame, context: str = "") -> Connection:
    took = (Frame("jobs", "load", "jobs.py", 10), Frame("jobs", "turn", "jobs.py", 20))
    checkout = Checkout(
        number, Backend(number, 0.0, "db/x"), 0.0, 900.0, "session", "pool", took[0].site, took, owner, standing,
        context, None,
    )  # fmt: skip
    dead = owner.state == "dead"
    return SEEN._replace(
        pid=number, holder="owner_dead" if dead else "overdue", cause="owner_dead" if dead else "overdue",
        checkout=checkout, process=ProcessIdentity(1, 0.0, "", "", "shop"),
    )  # fmt: skip


def test_one_thread_that_took_many_at_one_line_is_not_still_at_work_with_each() -> None:
    for stands, one_by_one in (
        (replace(LOAD, line=12), "held_while_working"),
        (replace(TURN, line=22), "left_to_caller"),
    ):
        one = [held(number, Owner("thread", "t", "alive"), stands) for number in range(3)]
        each = [held(number, Owner("thread", f"t{number}", "alive"), stands) for number in range(3)]
        assert [found.cause.key for found in diagnose(report(*one)).diagnoses] == ["kept_or_forgotten"]
        assert [found.cause.key for found in diagnose(report(*each)).diagnoses] == [one_by_one]


def test_many_connections_that_one_function_took_and_left_to_its_caller_were_left_open() -> None:
    taken = [held(number, Owner("thread", "t", "alive"), replace(TURN, line=22)) for number in range(3)]
    plain_ones = [
        each._replace(checkout=replace(each.checkout, kind="connection")) for each in taken if each.checkout is not None
    ]
    (found,) = diagnose(report(*plain_ones)).diagnoses
    assert (found.cause.key, found.is_leak) == ("function_left_it_open", True)


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


def test_an_ended_greenlet_is_no_thread() -> None:
    (found,) = diagnose(report(held(1, Owner("greenlet", "Greenlet-0", "dead", 60.0)))).diagnoses
    assert found.cause.key == "greenlet_ended"


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


def test_the_advice_for_a_web_request_is_the_teardown() -> None:
    serving = Owner("thread", "Thread-7 (process_request_thread)", "dead", 60.0)
    for guilty in (held(1, serving), held(1, Owner("thread", "t", "dead", 60.0), context="GET /orders")):
        assert "@app.teardown_request" in diagnose(report(guilty)).diagnoses[0].cause.change
    assert diagnose(report(held(1, Owner("thread", "t", "dead", 60.0)))).diagnoses[0].cause.key == "thread_ended"


def test_the_advice_for_what_an_executor_ran_is_no_teardown() -> None:
    """The request's teardown removes the session of the request's own thread, though a copied context names the request."""
    worker = Owner("thread", "ThreadPoolExecutor-0_0", "alive", runs_jobs=True)
    (found,) = diagnose(report(held(1, worker, context="GET /orders"))).diagnoses
    assert found.cause.key == "left_by_job"
    assert "at the end of the function that the executor runs" in found.cause.change
    assert cause_at(replace(LOAD, line=12), owner=worker) == "held_while_working"
    assert cause_at(kind="connection", owner=worker) == "function_left_it_open"
    (found,) = diagnose(report(held(1, replace(worker, state="dead", dead_for=60.0), context="GET /orders"))).diagnoses
    assert found.cause.key == "thread_ended"


def test_the_advice_for_an_open_session_fits_one_that_has_no_remove() -> None:
    (found,) = diagnose(report(held(1, Owner("thread", "t", "alive")))).diagnoses
    assert found.cause.key == "session_left_open"
    assert "session.close(), or remove() of a scoped_session" in found.cause.change


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
        note = (
            f"shop: {once_used} of its {once_used + 2} connections lie in its pools and were used once and never again"
        )
        assert any(note in each for each in notes(seen)) == told
