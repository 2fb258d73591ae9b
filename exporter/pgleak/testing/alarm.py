"""Speaks while the run hangs: a leaked session may hold a lock that a later drop_all() waits for, and then no report comes."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

PATIENCE = 5.0  # seconds that anything may take before somebody wonders
_AGAIN = 0.5  # seconds
_WAITING = frozenset({"sqlalchemy", "asyncio"})  # who is on the stack of a thread that waits for a database


class Alarm:
    """To be made, and closed, while pytest captures nothing: what it says goes where standard error leads then."""

    def __init__(self) -> None:
        self._error = os.dup(2)
        self._said: set[str] = set()

    @contextlib.contextmanager
    def watching(self, texts: Iterable[str]) -> Iterator[None]:
        """Say each of these, once in all, if the block waits for a database for long; with none to say, watch nothing."""
        unsaid = [text for text in texts if text not in self._said]
        if not unsaid:
            yield
            return
        over = threading.Event()
        arguments = (unsaid, threading.get_ident(), over)
        watcher = threading.Thread(target=self._watch, args=arguments, name="pgleak-alarm", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def close(self) -> None:
        os.close(self._error)

    def _watch(self, texts: list[str], thread: int, over: threading.Event) -> None:
        wait = PATIENCE
        while not over.wait(wait):
            if _waits(sys._current_frames().get(thread)):  # noqa: SLF001 - documented
                self._said.update(texts)
                parts = [
                    f"\n\npgleak: the run has been waiting for {PATIENCE:g} s, perhaps for what this holds:",
                    *texts,
                    "",
                ]
                with contextlib.suppress(OSError):  # a pipe that nobody reads any more
                    os.write(self._error, "\n\n".join(parts).encode(errors="replace"))
                return
            wait = _AGAIN


def _waits(frame: FrameType | None) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _WAITING:
            return True
        frame = frame.f_back
    return False
