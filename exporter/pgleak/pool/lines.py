"""From code objects and instruction offsets to lines that a person can open."""

from __future__ import annotations

import sys
from dis import opmap
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR
from itertools import islice
from typing import TYPE_CHECKING

from pgleak.pool.origin import FRAMES, capture, is_application, module_of
from pgleak.pool.snapshot import Frame

if TYPE_CHECKING:
    from types import CodeType

    from pgleak.pool.origin import Stack

_LOAD, _COPY, _RAISED = (opmap.get(name, -1) for name in ("LOAD_CONST", "DUP_TOP", "WITH_EXCEPT_START"))
_CALLS = {opmap[name] for name in ("CALL", "CALL_FUNCTION") if name in opmap}
_TURN, _TURN_AWAITED = opmap["FOR_ITER"], opmap["GET_ANEXT"]
_WAITS = {opmap[name] for name in ("SEND", "YIELD_VALUE", "YIELD_FROM", "RESUME", "GET_AWAITABLE") if name in opmap}
_WAITS |= {_LOAD} if "YIELD_FROM" in opmap else set()  # 3.10: before it
_AWAITED = 12  # code units from a call to where it is waited for, at most
_HEAD = 2 * 6  # bytes from where a loop's next turn is asked for to where it is waited for, at most


def resolve(stack: Stack) -> tuple[Frame, ...]:
    """The application's frames among these, with their lines; at most four."""
    frames = []
    for index in range(0, len(stack), 2):
        code, offset = stack[index], stack[index + 1]
        assert not isinstance(code, int)
        assert isinstance(offset, int)
        if index == 0 or is_application(code):
            lines = line_of(code, offset), _end_of(code, offset)
            frames.append(Frame(module_of(code), function_of(code), code.co_filename, *lines, is_generator(code)))
    return tuple(frames[:FRAMES])


def site_of(code: CodeType) -> str:
    """`module:function`, the label."""
    return f"{module_of(code)}:{function_of(code)}"


def function_of(code: CodeType) -> str:
    """The qualified name where Python keeps one in the code (3.11 and later), else the plain one."""
    name: str = getattr(code, "co_qualname", code.co_name)
    return name.replace("<locals>.", "")


def line_of(code: CodeType, offset: int) -> int:
    """The line of the instruction; the function's first one when there is none."""
    for start, end, line in code.co_lines():
        if start <= offset < end and line is not None:
            return line
    return code.co_firstlineno


def _end_of(code: CodeType, offset: int) -> int:
    """The last line of the expression that the instruction is about; 0 where Python does not tell."""
    if offset < 0:
        return 0  # a function that has not begun its first instruction
    units = code.co_code
    if units[offset] == _TURN or (
        units[offset] in _WAITS and _TURN_AWAITED in units[max(offset - _HEAD, 0) : offset : 2]
    ):
        return 0  # the head of a loop, which Python 3.11 and 3.12 count to all of it
    if _leaves_block(code, offset):
        return max((line for start, _, line in code.co_lines() if start < offset and line is not None), default=0)
    positions = getattr(code, "co_positions", None)  # 3.11
    if positions is None:
        return 0
    _, last, _, _ = next(islice(positions(), offset // 2, None), (None, None, None, None))
    return last or 0


def _leaves_block(code: CodeType, offset: int) -> bool:
    """Whether the instruction is the end of a `with` block: Python 3.10 and 3.13 count it to the block's first line.

    Known by the three None that the exit is called with, a few instructions earlier where it is awaited.
    """
    units = code.co_code
    operation = units[offset]
    if operation == _RAISED:
        return True
    start = offset - 2 * _AWAITED if operation in _WAITS else offset
    nones = {number for number, value in enumerate(code.co_consts) if value is None}
    for at in range(max(start, 6), offset + 1, 2):
        (one, first), (two, second), (three, third) = (units[at - back : at - back + 2] for back in (6, 4, 2))
        if one == _LOAD and first in nones and units[at] in _CALLS:
            if two == three == _COPY:
                return True  # 3.10
            if two == three == _LOAD and {second, third} <= nones:
                return True
    return False


def is_generator(code: CodeType) -> bool:
    """Whether the code may wait in the middle for whoever runs it."""
    return bool(code.co_flags & (CO_GENERATOR | CO_ASYNC_GENERATOR))


def standing(thread: int) -> tuple[Frame, ...]:
    """Where a thread stands now: its application frames, the innermost first. Empty when it is gone."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented, for debugging deadlocks, which is this
    return resolve(capture(frame)[0])
