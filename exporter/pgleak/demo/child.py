"""A process of the demo: its output in a file, its end tied to ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TAIL = 15  # lines


class ChildEndedError(Exception):
    """A process ended that should not have; the text says which, and what it last said."""


class Child:
    """A Python module in a process of its own."""

    def __init__(self, name: str, folder: Path, arguments: list[str], environ: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._output = folder / f"{name}.log"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pgleak.demo.leash", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environ or {})},
                # Ctrl-C is for us alone: we end the others in order.
                start_new_session=True,
            )

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def said(self) -> str:
        """Return the output so far."""
        return self._output.read_text(errors="replace")

    def check(self) -> None:
        """Raise :class:`ChildEndedError` when the process has ended."""
        if self.has_ended:
            raise ChildEndedError(report(f"{self.name} ended with code {self._process.returncode}", self.said()))

    def end(self) -> None:
        """SIGTERM, and SIGKILL for one that does not heed it."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # and what it has started
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def report(what: str, output: str) -> str:
    """Say what happened, and the last lines of the output."""
    lines = output.splitlines()[-_TAIL:]
    said = "\n".join(f"    {line}" for line in lines) if lines else "    (nothing)"
    return f"{what}; it last said:\n{said}"
