"""What the application tells about the work at hand: how long it may take, and what it serves."""

from __future__ import annotations

from contextlib import _GeneratorContextManager, contextmanager, suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgleak.pool.owner import current_owner
from pgleak.pool.snapshot import Expected, checked_limit

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Marks:
    """What holds where a checkout is made."""

    context: str = ""
    expected: Expected | None = None


NOTHING = Marks()
MARKS: ContextVar[Marks] = ContextVar("pgleak_marks", default=NOTHING)

# Blocks that are open now, by the identity of whoever is inside: they hold for what he has checked out before, too.
_open: dict[int, tuple[Expected, ...]] = {}


def expected_hold(name: str, *, max_seconds: float) -> _GeneratorContextManager[None]:
    """Whatever this thread or task holds in the block is known to take long: no suspect before `max_seconds`.

    Counts for connections that are checked out in the block, how long ever they stay out, and for those that were
    checked out before it, while it lasts. A holder that ends without returning is a suspect all the same.
    `max_seconds` may be infinite. Raises TypeError for a name that is no string and for what is no number, ValueError for
    a negative number and for NaN.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    checked_limit("max_seconds", max_seconds)
    return _hold(name, float(max_seconds))  # which is a generator, and would check at `with` only


@contextmanager
def _hold(name: str, max_seconds: float) -> Iterator[None]:
    expected = Expected(name, max_seconds)
    owner = current_owner()
    key = owner.key()
    token = MARKS.set(replace(MARKS.get(), expected=expected))
    _open[key] = (*_open.get(key, ()), expected)
    try:
        yield
    finally:
        remaining = tuple(block for block in _open.get(key, ()) if block is not expected)
        if remaining:
            _open[key] = remaining
        else:
            _open.pop(key, None)
        _leave(token)


def expected_now(key: int) -> Expected | None:
    """The innermost block in which this owner is now."""
    blocks = _open.get(key)
    return blocks[-1] if blocks else None


@contextmanager
def context(name: str) -> Iterator[None]:
    """Connections checked out in the block are reported with this name: an endpoint, a task."""
    token = MARKS.set(replace(MARKS.get(), context=str(name)))
    try:
        yield
    finally:
        _leave(token)


def _leave(token: Token[Marks]) -> None:
    """Set back what held before, unless another context leaves than entered: then there it was never set.

    So it is with a generator that a framework resumes in one thread after the other.
    """
    with suppress(ValueError):
        MARKS.reset(token)


def set_context(name: str | None) -> None:
    """Like `context`, until the next call in this thread or task: for hooks that only see a beginning and an end."""
    MARKS.set(replace(MARKS.get(), context=str(name or "")))


def forget() -> None:
    """After a fork: nobody else is in a block."""
    _open.clear()
