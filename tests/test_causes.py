"""Why connections do not come back, by what is known of who has them; and what to change."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from diagnosis_support import LOAD, SEEN, TURN, held, report
from pgleak.pool.snapshot import Backend, Checkout, Expected, Frame, Owner, ProcessIdentity
from pgleak.who.causes import cause_of
from pgleak.who.diagnosis import diagnose

if TYPE_CHECKING:
    from pgleak.pool.snapshot import HolderKind


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


def test_an_ended_greenlet_is_no_thread() -> None:
    (found,) = diagnose(report(held(1, Owner("greenlet", "Greenlet-0", "dead", 60.0)))).diagnoses
    assert found.cause.key == "greenlet_ended"


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
