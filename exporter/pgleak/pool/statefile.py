"""One process's state file: locked while the process lives, rewritten in place every two seconds by a daemon thread.

The lock (flock) is what says that the process lives: the kernel releases it however the process ends. Other processes
and `pgleak serve --pool-dir` read the files with `pgleak.pool.reading`.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pgleak import variables
from pgleak.pool import envelope, reading
from pgleak.pool.encoding import encode
from pgleak.pool.folder import Folder, FolderError, StateName

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgleak.pool.folder import StrPath
    from pgleak.pool.snapshot import ProcessSnapshot

INTERVAL = 2.0

_FOLD_EVERY = 150  # writes: ended processes are folded at the start and about every five minutes
_log = logging.getLogger("pgleak")


class StateFile:
    """The file itself. Not safe for use by two threads at once."""

    def __init__(self, path: StrPath) -> None:
        """Create the folder (0700) where it is missing, and the file in it. Raises FolderError or OSError."""
        self._sequence = 0
        self._token = os.urandom(16)
        self._named = False
        self._folder = Folder(path, create=True)
        try:
            self._descriptor = self._folder.create(self._token)
        except BaseException:
            self._folder.close()
            raise

    def write(self, snapshot: ProcessSnapshot, stamp: float) -> None:
        """Make this what readers see, as of `stamp` (monotonic clock, shared by the processes of one machine)."""
        snapshot = _without_idle_sites(snapshot)
        payload = encode(snapshot)
        if len(payload) > envelope.LIMIT:
            payload = encode(_without_stacks(snapshot))
        envelope.write(self._descriptor, envelope.Record(self._sequence, stamp, self._token, payload))
        self._sequence += 1
        if not self._named:  # readers never see a file before it is locked and whole
            self._folder.finish(self._token, str(StateName(os.getpid(), self._token)))
            self._named = True

    def exists(self) -> bool:
        """Whether the file still has a name, which cleaners of temporary folders may have taken."""
        return os.fstat(self._descriptor).st_nlink > 0

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    def close(self) -> None:
        """Give up the lock, and with it the claim to be alive. In a forked child it stays with the parent."""
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
        self._folder.close()


class Reporter:
    """Writes this process's state file until the process ends, without ever keeping it alive or disturbing it."""

    def __init__(
        self,
        path: StrPath,
        read: Callable[[], ProcessSnapshot],
        *,
        interval: float = INTERVAL,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.pid = os.getpid()
        self._read = read
        self._interval = interval
        self._now = now
        self._file: StateFile | None = None
        self._writing = threading.Lock()
        self._claim = threading.Lock()
        self._ended = threading.Event()
        self._writes = 0
        self._complaints: set[str] = set()

    def start(self) -> None:
        """Start the thread; the first call alone does something."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            threading.Thread(target=self._run, name="pgleak-reporter", daemon=True).start()
        except RuntimeError as error:  # no threads here, or not any more
            self._complain(str(error))

    def write(self) -> None:
        """Bring the file up to date now. Never raises."""
        if not self._writing.acquire(timeout=1.0):
            return  # another thread is at it
        try:
            if not self._ended.is_set():
                self._write()
        except FolderError as error:
            self._complain(str(error))
        except OSError as error:
            self._complain(f"{os.fspath(self.path)!s}: {error.strerror}")
        except Exception as error:  # noqa: BLE001  whatever it is, the application goes on
            self._complain(f"{type(error).__name__}: {error}")
        finally:
            self._writing.release()

    def stop(self) -> None:
        """Write a last time and give up the lock: the process is ending."""
        self.write()
        self._ended.set()
        if self._writing.acquire(timeout=1.0):
            try:
                self._close()
            finally:
                self._writing.release()

    def abandon(self) -> None:
        """In a forked child: forget the parent's file without touching its lock, nor any of threads that are not here."""
        self._ended = threading.Event()
        self._ended.set()
        self._close()

    def _run(self) -> None:
        while True:
            self.write()
            if self._writes % _FOLD_EVERY == 1:
                try:
                    reading.fold(self.path)
                except Exception as error:  # noqa: BLE001  as in `write`: this thread has to go on
                    self._complain(f"{type(error).__name__}: {error}")
            if self._ended.wait(self._interval):
                return

    def _write(self) -> None:
        if self._file is not None and not self._file.exists():
            self._close()
        snapshot = self._read()
        if self._file is None:
            self._file = StateFile(self.path)
        self._file.write(snapshot, self._now())
        self._writes += 1

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _complain(self, message: str) -> None:
        if message not in self._complaints and len(self._complaints) < 10:
            self._complaints.add(message)
            _log.warning("pgleak cannot keep its state file: %s", message)


_reporters: dict[int, Reporter] = {}  # by process id: what a child inherited is not its own


def ensure(read: Callable[[], ProcessSnapshot], path: StrPath | None = None) -> None:
    """Keep this process's state file from now on, if PGLEAK_DIR (or `path`) is set. Cheap, may be called often."""
    pid = os.getpid()
    if pid in _reporters:
        return
    folder = path or os.environ.get(variables.DIR)
    if not folder:
        return
    reporter = Reporter(folder, read, interval=INTERVAL)
    if _reporters.setdefault(pid, reporter) is reporter:  # one of several threads that came at once
        reporter.start()
        _at_exit_of_children()


def flush() -> StrPath | None:
    """Bring this process's file up to date, so that what is read next is never older than what was read before.

    Returns the folder, None when no file is kept.
    """
    reporter = _reporters.get(os.getpid())
    if reporter is None:
        return None
    reporter.write()
    return reporter.path


def stop() -> None:
    """Write a last time and keep no file any more, until `ensure` is called again."""
    reporter = _reporters.pop(os.getpid(), None)
    if reporter is not None:
        reporter.stop()


def _at_exit_of_children() -> None:
    """Children of multiprocessing and of billiard (Celery) end without atexit, but run finalizers of their own."""
    for name in ("multiprocessing.util", "billiard.util"):
        module = sys.modules.get(name)
        with contextlib.suppress(Exception):
            if module is not None:
                module.Finalize(None, stop, exitpriority=1)


def _after_fork() -> None:
    inherited = list(_reporters.values())
    _reporters.clear()
    for reporter in inherited:
        reporter.abandon()


def _without_idle_sites(snapshot: ProcessSnapshot) -> ProcessSnapshot:
    """How long a site usually holds is asked of those only that hold something now."""
    pools = []
    for pool in snapshot.pools:
        holding = {held.site for held in pool.checkouts}
        sites = {site: statistics for site, statistics in pool.sites.items() if site in holding}
        pools.append(replace(pool, sites=sites))
    return replace(snapshot, pools=tuple(pools))


def _without_stacks(snapshot: ProcessSnapshot) -> ProcessSnapshot:
    pools = tuple(
        replace(
            pool,
            made=(),
            orphaned_at=(),
            checkouts=tuple(replace(held, frames=(), standing=()) for held in pool.checkouts),
        )
        for pool in snapshot.pools
    )
    return replace(snapshot, pools=pools)


atexit.register(stop)
os.register_at_fork(after_in_child=_after_fork)
