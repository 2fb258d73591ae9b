"""From code objects and instruction offsets to lines that a person can open."""

from __future__ import annotations

import sys
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR
from itertools import islice
from typing import TYPE_CHECKING

from pgleak.pool.origin import FRAMES, capture, is_application, module_of
from pgleak.pool.snapshot import Frame

if TYPE_CHECKING:
    from types import CodeType

    from pgleak.pool.origin import Stack


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
    positions = getattr(code, "co_positions", None)  # 3.11
    if positions is None:
        return 0
    _, last, _, _ = next(islice(positions(), offset // 2, None), (None, None, None, None))
    return last or 0


def is_generator(code: CodeType) -> bool:
    """Whether the code may wait in the middle for whoever runs it."""
    return bool(code.co_flags & (CO_GENERATOR | CO_ASYNC_GENERATOR))


def standing(thread: int) -> tuple[Frame, ...]:
    """Where a thread stands now: its application frames, the innermost first. Empty when it is gone."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented, for debugging deadlocks, which is this
    return resolve(capture(frame)[0])
