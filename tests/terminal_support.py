"""A terminal with a command in it, and what a person sees there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios

#: A command with its parameters, an end of line, or one character.
_PART = re.compile(r"\x1b\[([\d;]*)([A-Za-z])|([^\x1b])", re.DOTALL)


class Terminal:
    """A terminal of 80 by 24, as far as a redrawn table needs one; any other command is an error."""

    def __init__(self, arguments: list[str], **environment: str) -> None:
        self.main, child = pty.openpty()
        plain = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "COLUMNS", "LINES"}}
        self.resize(24, 80)
        self.process = subprocess.Popen(
            arguments, stdin=child, stdout=child, stderr=subprocess.PIPE, env={**plain, "TERM": "xterm", **environment}
        )
        os.close(child)
        os.set_blocking(self.main, False)
        self.received = b""
        self._row = self._column = 0
        self._rows: list[str] = []

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.main, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.columns = columns

    def read(self) -> bytes:
        """What has come since the last time."""
        try:
            new = os.read(self.main, 65536)
        except (BlockingIOError, OSError):
            new = b""
        self.received += new
        for parameters, command, character in _PART.findall(new.decode()):
            self._take(parameters, command, character)
        return new

    @property
    def rows(self) -> list[str]:
        """What stands there now."""
        return [row.rstrip() for row in self._rows]

    def _take(self, parameters: str, command: str, character: str) -> None:
        if command == "H":
            self._row, self._column = (int(each) - 1 for each in parameters.split(";"))
        elif command == "J":
            self._rows[0 if parameters == "2" else self._row :] = []
        elif command == "K":
            # A cursor that has written the last column still stands on it.
            self._put(self._here[: min(self._column, self.columns - 1)])
        elif character in {"\r", "\n"}:
            self._row, self._column = (self._row + 1, self._column) if character == "\n" else (self._row, 0)
        elif character:
            self._put(f"{self._here[: self._column]:<{self._column}}{character}{self._here[self._column + 1 :]}")
            self._column += 1
            assert self._column <= self.columns, f"beyond the right edge: {self._here!r}"
        else:
            assert command == "m", f"\\e[{parameters}{command} is not known here"

    @property
    def _here(self) -> str:
        return self._rows[self._row] if self._row < len(self._rows) else ""

    def _put(self, text: str) -> None:
        self._rows += [""] * (self._row + 1 - len(self._rows))
        self._rows[self._row] = text

    def close(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(10)
        assert self.process.stderr is not None
        assert self.process.stderr.read() == b""
        self.process.stderr.close()
        os.close(self.main)
        return code
