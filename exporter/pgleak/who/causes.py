"""The table of causes: what each kind of evidence means, what to change, and how sure that is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgleak.pool.snapshot import Checkout, Frame
    from pgleak.pool.suspects import Cause as Verdict
    from pgleak.who.connection import Connection

#: `certain`: the fault itself was seen; `likely`: its traces were; `possible`: seen from outside alone.
Sure: TypeAlias = Literal["certain", "likely", "possible"]


@dataclass(frozen=True, slots=True)
class Cause:
    """One way to leak connections."""

    key: str
    what: str  # reads after "cause:"
    change: str
    sure: Sure


_MEANT = "if it is meant to be held, say so: `with pgleak.expected_hold(...)`"

CAUSES: dict[str, Cause] = {
    cause.key: cause
    for cause in (
        Cause(
            "used_across_fork",
            "a forked worker uses the connection that its parent opened: two processes speak over one socket",
            "call engine.dispose(close=False) in the worker right after the fork, or make the engine there",
            "certain",
        ),
        Cause(
            "detached",
            "it was detached from its pool, and who detached it has not closed it",
            "close it where it was detached, in a finally block or a with block; or do not detach it",
            "certain",
        ),
        Cause(
            "disposed_while_out",
            "engine.dispose() came while it was out: no pool will ever close it",
            "dispose when nothing is out, as at shutdown; whoever holds it must close it",
            "certain",
        ),
        Cause(
            "task_ended",
            "the task that took it has ended (cancelled, perhaps) and did not give it back",
            "take it with `async with`, so that a cancelled task closes it on its way out",
            "certain",
        ),
        Cause(
            "thread_ended",
            "the thread that took it has ended and did not give it back",
            "take it with `with`, or call Session.remove() in a finally block as the thread's last act",
            "certain",
        ),
        Cause(
            "greenlet_ended",
            "the greenlet that took it has ended and did not give it back",
            "take it with `with`, or call Session.remove() in a finally block as the greenlet's last act",
            "certain",
        ),
        Cause(
            "request_ended",
            "what took it served a web request, has ended and did not give it back",
            "give it back when the request ends: in Flask a function under `@app.teardown_request` that calls session.close(), or remove() of a scoped_session",
            "certain",
        ),
        Cause(
            "engine_per_call",
            "one place makes an engine per call; each keeps a connection open that it used once",
            "make one engine per process and share it, or call dispose() on each when it is done",
            "likely",
        ),
        Cause(
            "expected_hold_exceeded",
            "it is held for longer than its expected_hold block allows",
            "look at what it waits for, or raise max_seconds",
            "certain",
        ),
        Cause(
            "handed_on",
            "the function that took it has ended and left it to somebody who uses it still",
            f"whoever has it closes it when the work is done; {_MEANT}",
            "likely",
        ),
        Cause(
            "kept_between_turns",
            "the loop that took it went on to the next turn without giving it back",
            "give it back on every path, at best `with Session() as session:` inside the loop; mind `continue` and `except`",
            "likely",
        ),
        Cause(
            "held_while_working",
            "the code that took it is still at work and holds it meanwhile",
            f"give it back before long work, waiting and calls elsewhere, and take it again afterwards; {_MEANT}",
            "likely",
        ),
        Cause(
            "left_to_caller",
            "the function that took it has ended; code that called it still runs, and works with it or has forgotten it",
            f"close it where that code is done with it, after errors too, at best with a with block; {_MEANT}",
            "likely",
        ),
        Cause(
            "kept_or_forgotten",
            "one that lives took many here and gave none back: it keeps or forgets them",
            "give each back before the next is taken, at best with a with block; look for a list, a cache or an attribute that keeps them",
            "likely",
        ),
        Cause(
            "session_left_open",
            "the session outlived the request or call that opened it; its thread or task does something else",
            "end it with the request, errors and streamed answers included: a with block, session.close(), or remove() of a scoped_session as the teardown's last step: a use after that opens a new session",
            "likely",
        ),
        Cause(
            "left_by_job",
            "a function that an executor ran has ended and left the session open; no request's teardown reaches the executor's thread",
            "call session.close(), or remove() of a scoped_session, in a finally block at the end of the function that the executor runs",
            "likely",
        ),
        Cause(
            "function_left_it_open",
            "the function that took it has ended without closing it: an exception, an early return, or its caller keeps it",
            "take it with `with engine.connect() as connection:`; keep no exception with its traceback, and close what a caller is given",
            "likely",
        ),
        Cause(
            "generator_left_it_open",
            "the generator that took it has not given it back: who runs it works still or dropped it, or an error came through its yield",
            "give it back in a finally block around the yield; run the generator in a with block or to its end, or close() it",
            "likely",
        ),
        Cause(
            "outside_pools",
            "no process of the application knows it, although all of them report",
            "look for connections opened without SQLAlchemy, for engines that are not watched, and for processes that lost their host",
            "likely",
        ),
        Cause(
            "left_in_transaction",
            "its transaction stays open: a session that is never closed, as seen from the server",
            "close or roll back each session; pgleak inside the application names the line",
            "possible",
        ),
        Cause(
            "never_reused",
            "it was used once and never again: an engine or a pool per call, as seen from the server",
            "share one engine per process; pgleak inside the application names the line",
            "possible",
        ),
        Cause(
            "passed_over",
            "its pool opened a younger connection although this one lay idle: it is not free, as seen from the server",
            "look for connections that are taken and not given back; pgleak inside the application names the line",
            "possible",
        ),
    )
}
"""By key."""


#: Those in which code that lives is at work with what it holds: for long, but nothing says that it will not give it back.
AT_WORK = frozenset({"held_while_working", "left_to_caller", "expected_hold_exceeded", "handed_on"})

_LEFT_OPEN = frozenset({"function_left_it_open", "generator_left_it_open"})
#: How Python names a thread that serves one request (socketserver.ThreadingMixIn): the development servers of Flask, Django.
_SERVES = "(process_request_thread)"
#: So many connections that one thread or task took at one line, and still holds, were not taken for one piece of work.
_MANY = 3


def causes_of(connections: Sequence[Connection]) -> list[tuple[Connection, Cause]]:
    """The causes of those that look leaked, each in the light of the others."""
    found = [(each, cause) for each in connections if (cause := cause_of(each)) is not None]
    takers = Counter(_taker(each) for each, _ in found)
    return [(each, _of_many(cause) if takers[_taker(each)] >= _MANY else cause) for each, cause in found]


def _of_many(cause: Cause) -> Cause:
    return CAUSES["kept_or_forgotten"] if cause.key in {"held_while_working", "left_to_caller"} else cause


def _taker(connection: Connection) -> tuple[object, ...]:
    """Who took it, where. Nobody stands at two places at once, so two threads of one name are told apart by that."""
    held = connection.checkout
    if held is None:
        return ()
    return connection.process, held.owner.kind, held.owner.name, held.standing, held.frames[:1]


def cause_of(connection: Connection) -> Cause | None:
    """The cause that fits what is known of a connection; None when it does not look leaked."""
    if not connection.is_suspect:
        return None
    if connection.holder == "unclaimed":
        return CAUSES["outside_pools"]
    if connection.holder == "orphaned":
        return CAUSES["disposed_while_out"]
    checkout = connection.checkout
    if checkout is None:
        # Whichever evidence made it look leaked, in the course of an hour more than one: what is in a transaction was not left by a pool, whose connections are reset.
        in_transaction = connection.state.startswith("idle in transaction")
        return CAUSES["left_in_transaction" if in_transaction else connection.evidence]
    if connection.cause == "inherited":
        return CAUSES["used_across_fork"]
    if connection.cause == "detached":
        return CAUSES["detached"]
    if connection.cause == "owner_dead":
        owner = checkout.owner
        has_request = owner.kind != "task" and not owner.runs_jobs  # whose `context` may be copied from a request's
        if has_request and (checkout.context or _SERVES in owner.name):
            return CAUSES["request_ended"]
        return CAUSES[f"{owner.kind}_ended"]
    why = _why_overdue(checkout, is_used=connection.is_used)
    return CAUSES["handed_on" if why in _LEFT_OPEN and connection.is_used else why]


def is_one_piece_of_work(verdict: Verdict | None, checkout: Checkout) -> bool:
    """Whether nobody but the code that took it has it; in a loop or a request that went on, it was forgotten for all its use."""
    if verdict == "overdue":
        return _why_overdue(checkout, is_used=True) in {"held_while_working", "left_to_caller"}
    return verdict in {"detached", "orphaned"}


def _why_overdue(checkout: Checkout, *, is_used: bool) -> str:
    """An `expected_hold` block is about code at work; it excuses nothing that such code has left behind."""
    why = _by_stacks(checkout)
    if why == "left_to_caller" and checkout.kind == "connection" and not is_used:
        return "function_left_it_open"  # a session may have been opened by the caller itself; this was not
    return "expected_hold_exceeded" if checkout.expected is not None and why in AT_WORK else why


def _by_stacks(checkout: Checkout) -> str:
    """The owner lives: where it stands now, beside the place where it took the connection, tells what it is doing."""
    frames = checkout.frames
    user = next((depth for depth, frame in enumerate(frames) if not frame.hands_on), 0)
    common = _innermost_common(checkout, user)
    if common is not None:
        depth, taken, stands = common
        went_on = stands.line < taken.line and stands.end < taken.line  # and not an argument of the call it stands in
        if depth <= user:  # the very function that took it still runs, or the one that it was taken for
            return "kept_between_turns" if went_on else "held_while_working"
        if checkout.kind == "session":
            return "kept_between_turns" if went_on else "left_to_caller"
        if depth == user + 1 and not went_on:
            return "left_to_caller"
    if checkout.kind == "session":
        return "left_by_job" if checkout.owner.runs_jobs else "session_left_open"
    return "generator_left_it_open" if frames and frames[0].is_generator else "function_left_it_open"


def _innermost_common(checkout: Checkout, user: int) -> tuple[int, Frame, Frame] | None:
    """The innermost function of the checkout's stack that still runs: its depth, its line then, its line now."""
    for depth, frame in enumerate(checkout.frames):
        for above, now in enumerate(checkout.standing):
            if (frame.file, frame.function) == (now.file, now.function):
                # Its callers wait at the lines where they called it; at others, it was called once more.
                callers = zip(checkout.frames[depth + 1 :], checkout.standing[above + 1 :], strict=False)
                if not all(_is_same(then, still) for then, still in callers):
                    continue
                if depth > user and now.function == "<module>" and not above and _is_same(frame, now):
                    return None  # a server that the program runs in its main thread, and which went on
                return depth, frame, now
    return None


def _is_same(one: Frame, other: Frame) -> bool:
    return (one.file, one.function, one.line) == (other.file, other.function, other.line)
