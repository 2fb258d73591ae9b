"""A terminal that is redrawn where it changed, for slow links; or a plain stream."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TextIO

_RED, _PLAIN = "\x1b[1;31m", "\x1b[0m"
_CLEAR = "\x1b[2J"
_WIDTH = 80  # where no terminal says another
_NARROWEST, _WIDEST = 40, 120  # that lines are made for
_GLANCE = 0.1  # seconds between two looks at the terminal's size


class Screen:
    """Shows one list of lines after the other in the same place."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self.is_live = self._is_terminal and environ.get("TERM", "dumb") != "dumb"
        self._is_coloured = self.is_live and not environ.get("NO_COLOR")
        self._shown: list[str] = []
        self._size = os.terminal_size((0, 0))

    @property
    def width(self) -> int:
        """Columns that a line may have."""
        if not self._is_terminal:
            return _WIDTH
        return min(max(shutil.get_terminal_size().columns, _NARROWEST), _WIDEST)

    def say(self, lines: Sequence[str]) -> None:
        """Print lines that stay."""
        self._stream.write("".join(f"{self._painted(line)}\n" for line in lines))
        self._stream.flush()

    def show(self, lines: Callable[[int], Sequence[str]], seconds: float) -> None:
        """Show the lines made for a width for so long; a window that changes its size meanwhile is redrawn at once."""
        end = time.monotonic() + seconds
        self._draw(lines(self.width))
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _GLANCE))
            if shutil.get_terminal_size() != self._size:
                self._draw(lines(self.width))

    def _draw(self, lines: Sequence[str]) -> None:
        """Make this what the terminal shows; only rows that changed are sent."""
        columns, rows = size = shutil.get_terminal_size()
        cut = [line[:columns] for line in lines[: rows - 1]]
        if len(lines) > len(cut) > 1:
            cut[-1] = f"... {len(lines) - len(cut) + 1} more lines: make the window higher, or use --once"[:columns]
        parts = []
        if size != self._size:
            self._size, self._shown = size, []
            parts.append(_CLEAR)
        for row, line in enumerate(cut):
            if row >= len(self._shown) or self._shown[row] != line:
                # After a full row the cursor still stands on its last character, which would be erased.
                rest = "\x1b[K" if len(line) < columns else ""
                parts.append(f"\x1b[{row + 1};1H{self._painted(line)}{rest}")
        if len(cut) < len(self._shown):
            parts.append(f"\x1b[{len(cut) + 1};1H\x1b[J")
        self._shown = cut
        if parts:
            self._stream.write("".join(parts) + f"\x1b[{len(cut) + 1};1H")
            self._stream.flush()

    def _painted(self, line: str) -> str:
        return f"{_RED}{line}{_PLAIN}" if self._is_coloured and line.startswith("!") else line
