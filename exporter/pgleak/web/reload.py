"""The web config file as it is now: read again when it, or a file that it names, changes."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from pgleak.web.config import WebConfigError
from pgleak.web.policy import Policy, load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    _States = tuple[tuple[int, int, int, int] | None, ...]

log = logging.getLogger("pgleak.web")


class LivePolicy:
    """The last good version of the web config. ``problem`` says what is wrong with a newer one.

    A new version that asks less of clients than the one in force (no TLS, no client certificates, no passwords) is
    treated as wrong: it is more likely a file cut short than a wish. A restart takes it as it is.
    """

    def __init__(self, file: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads the file for the first time; raises WebConfigError. No file means no TLS and no passwords."""
        self.problem = ""
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self._policy = Policy()
        self._files: tuple[Path, ...] = ()
        self._seen: _States = ()
        if file is not None:
            self._policy = self._read(file)
            _log_notes(file, self._policy)

    def current(self) -> Policy:
        """The policy of this moment. Costs a look at each file's state, and a read only after a change."""
        if self._file is None or _states(self._files) == self._seen:
            return self._policy
        if self._lock.acquire(blocking=False):  # else another thread reads already, and the last version will do
            try:
                if _states(self._files) != self._seen:
                    self._reload(self._file)
            finally:
                self._lock.release()
        return self._policy

    def _reload(self, file: Path) -> None:
        try:
            policy = self._read(file)
        except WebConfigError as error:
            self._keep(str(error))
            return
        except Exception as error:  # noqa: BLE001 -- whatever it is, the last good version serves on; its text may quote
            self._keep(f"{file}: the changed web config cannot be read: {type(error).__name__}")
            return
        given_up = policy.opening(self._policy)
        if given_up:
            self._keep(f"{file}: the changed web config asks for no {given_up} any more; restart pgleak to have that")
            return
        self._policy = policy
        self.problem = ""
        log.info("%s: the changed web config is in force", file)
        _log_notes(file, policy)

    def _keep(self, problem: str) -> None:
        self.problem = problem
        log.error("%s\nThe last good version stays in force.", problem)

    def _read(self, file: Path) -> Policy:
        """Reads the files, after noting their states: what changes in between differs from its note, and is read again."""
        while True:
            self._seen = _states(self._files)
            found: Policy | WebConfigError
            try:
                found, named = load(file, self._clock)
            except WebConfigError as error:
                found, named = error, error.files
            if (file, *named) != self._files:
                self._files = (file, *named)
                continue
            if isinstance(found, WebConfigError):
                raise found
            return found


def _log_notes(file: Path, policy: Policy) -> None:
    for note in policy.notes:
        log.warning("%s: %s", file, note)


def _states(files: Sequence[Path]) -> _States:
    return tuple(map(_state, files))


def _state(file: Path) -> tuple[int, int, int, int] | None:
    """What changes with a file's content, or None for no such file."""
    try:
        state = os.stat(file)  # noqa: PTH116 -- Path.stat costs twice as much, on every request
    except (OSError, ValueError):
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
