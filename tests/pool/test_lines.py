"""How far what a frame stands in reaches, and for whom it takes what it takes."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pgleak.pool.lines import resolve
from pgleak.pool.origin import capture

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator

    from pgleak.pool.origin import Stack
    from pgleak.pool.snapshot import Frame


def test_a_function_that_has_not_begun_has_its_first_line() -> None:
    """A thread may be looked at before its first instruction."""
    code = test_a_function_that_has_not_begun_has_its_first_line.__code__
    for offset in (-1, -2):
        (frame,) = resolve((code, offset))
        assert (frame.line, frame.end) == (code.co_firstlineno, 0)


def test_a_statement_of_many_lines_has_an_end() -> None:
    stack = capture(
        sys._getframe(
            0,
        )
    )[0]
    (frame, *_) = resolve(stack)
    assert not frame.is_generator
    assert frame.end == (frame.line + 4 if sys.version_info >= (3, 11) else 0)


class Leaving:
    """Notes where the block that it is used in stands when that is left, and waits there if it is awaited; and at a second turn."""

    stack: Stack = ()
    turns = 0

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack = capture(sys._getframe(1))[0]

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None:
        await Pause()

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> int:
        self.turns += 1
        if self.turns > 1:
            await Pause()
        return self.turns


class Pause:
    def __await__(self) -> Generator[None, None, None]:
        yield


def test_the_end_of_a_with_block_belongs_to_all_of_it() -> None:
    """It stands on the block's first line, and is no loop that went back there."""
    inside = 0
    for is_raised in (False, True):
        with suppress(KeyError), Leaving() as leaving:
            inside = sys._getframe(0).f_lineno
            if is_raised:
                raise KeyError
        (frame, *_) = resolve(leaving.stack)
        assert frame.line < inside <= frame.end


def _waiting(function: Callable[[list[int]], Coroutine[Any, Any, None]]) -> tuple[Frame, int]:
    """Where a coroutine waits, and the line that it noted before."""
    lines: list[int] = [0]
    coroutine: Any = function(lines)
    coroutine.send(None)
    (frame,) = resolve((coroutine.cr_frame.f_code, coroutine.cr_frame.f_lasti))
    coroutine.close()
    return frame, lines[-1]


async def leaves(lines: list[int]) -> None:
    async with Leaving():
        lines.append(sys._getframe(0).f_lineno)


async def turns_and_waits(lines: list[int]) -> None:
    async for _ in Leaving():
        lines += [sys._getframe(0).f_lineno]


def test_the_end_of_an_async_with_block_belongs_to_all_of_it() -> None:
    frame, inside = _waiting(leaves)
    assert frame.line < inside <= frame.end


def test_the_head_of_a_loop_does_not_belong_to_its_body() -> None:
    stacks: list[Stack] = []

    def turns() -> Iterator[int]:
        for turn in range(2):
            stacks.append(capture(sys._getframe(1))[0])
            yield turn

    inside = within = 0
    for _ in turns():
        inside = sys._getframe(0).f_lineno
    turn = turns()
    while next(turn, None) is not None:
        within = sys._getframe(0).f_lineno
    for stack, line in zip(stacks, (inside, inside, within, within), strict=True):
        (frame, *_) = resolve(stack)
        assert frame.line < line
        assert frame.end < line
    waiting, body = _waiting(turns_and_waits)
    assert waiting.line < body
    assert waiting.end < body


def test_what_hands_on_what_it_takes_is_told_apart() -> None:
    def generator() -> Iterator[Stack]:
        yield capture(sys._getframe(0))[0]

    assert resolve(next(generator()))[0].is_generator
    takers = [lambda: capture(sys._getframe(0))[0]]
    assert resolve(takers[0]())[0].hands_on
    assert not resolve(capture(sys._getframe(0))[0])[0].hands_on
