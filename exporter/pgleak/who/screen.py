"""A terminal that is redrawn where it changed, for slow links; or a plain stream."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

_RED, _PLAIN = "\x1b[1;31m", "\x1b[0m"
_CLEAR = "\x1b[2J"


class Screen:
    """Shows one list of lines after the other in the same place."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        self._stream = stream
        self.is_live = stream.isatty() and environ.get("TERM", "dumb") != "dumb"
        self._is_coloured = self.is_live and not environ.get("NO_COLOR")
        self._shown: list[str] = []
        self._size = (0, 0)

    def say(self, lines: Sequence[str]) -> None:
        """Print lines that stay."""
        self._stream.write("".join(f"{self._painted(line)}\n" for line in lines))
        self._stream.flush()

    def draw(self, lines: Sequence[str]) -> None:
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
                parts.append(f"\x1b[{row + 1};1H{self._painted(line)}\x1b[K")
        if len(cut) < len(self._shown):
            parts.append(f"\x1b[{len(cut) + 1};1H\x1b[J")
        self._shown = cut
        if parts:
            self._stream.write("".join(parts) + f"\x1b[{len(cut) + 1};1H")
            self._stream.flush()

    def _painted(self, line: str) -> str:
        return f"{_RED}{line}{_PLAIN}" if self._is_coloured and line.startswith("!") else line
