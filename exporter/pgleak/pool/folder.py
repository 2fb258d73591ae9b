"""The folder that the processes of one application share (`PGLEAK_DIR`): who may use it, what lies in it, its lock.

Names:
    PID-TOKEN.state   one per process, locked (flock) while the process lives
    ended-VERSION     the counters of the processes that ended, replaced as a whole
    .new-TOKEN        either of the two before it is complete; nobody reads it
    .lock             shared while the folder is read, exclusive while files of ended processes are folded
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shlex
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    StrPath: TypeAlias = str | os.PathLike[str]

_LOCK = ".lock"
_UNFINISHED = ".new-"
_STATE_NAME = re.compile(r"([1-9][0-9]{0,9})-([0-9a-f]{32})\.state", re.ASCII)
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # O_NONBLOCK: opening a named pipe must not wait for its other end
_ABANDONED = 60.0  # seconds after which an unlocked unfinished file belongs to nobody


class FolderError(Exception):
    """The folder cannot be used. `reason` is a fixed word for the metric; the message is for the log."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnfitFileError(Exception):
    """A file in the folder that must not be read. `reason` is a fixed word for the metric."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class StateName:
    """The name of one process's file."""

    pid: int
    token: bytes

    def __str__(self) -> str:
        return f"{self.pid}-{self.token.hex()}.state"

    @classmethod
    def parse(cls, name: str) -> StateName | None:
        match = _STATE_NAME.fullmatch(name)
        return None if match is None else cls(int(match[1]), bytes.fromhex(match[2]))


class Folder:
    """An open folder that belongs to this user alone. Every access goes through its descriptor: it cannot be swapped."""

    __slots__ = ("_descriptor", "_owner", "path")

    def __init__(self, path: StrPath, *, create: bool = False) -> None:
        """Raises FolderError when it is missing, open to others, or another user's (root may read anybody's)."""
        self.path = os.fspath(path)
        if create:
            try:
                Path(self.path).mkdir(0o700)  # no parents: a missing mount must not be papered over
            except FileExistsError:
                pass
            except OSError as error:
                advice = f"make it first, as root: install -d -m 700 -o {os.geteuid()} {shlex.quote(self.path)}"
                raise FolderError("missing", f"{self.path}: cannot be created: {error.strerror}; {advice}") from None
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | _OPEN)
        except FileNotFoundError:
            raise FolderError("missing", f"{self.path}: does not exist; PGLEAK_DIR of the application is it") from None
        except NotADirectoryError:
            raise FolderError("not_a_folder", f"{self.path}: is a symbolic link or no folder") from None
        except OSError as error:
            advice = "" if create else "; it is open to the application's user alone: run as that user, or as root"
            raise FolderError("unreadable", f"{self.path}: cannot be opened: {error.strerror}{advice}") from None
        status = os.fstat(self._descriptor)
        self._owner = status.st_uid
        mine = os.geteuid()
        if status.st_uid != mine and (create or mine != 0):
            self.close()
            advice = "use a folder of its own" if create else "run as that user, or as root"
            raise FolderError(
                "foreign_owner",
                f"{self.path}: belongs to user {status.st_uid}, this process runs as {mine}; {advice}",
            )
        if status.st_mode & 0o077:
            self.close()
            raise FolderError(
                "not_private",
                f"{self.path}: mode {stat.S_IMODE(status.st_mode):04o} lets other users in; chmod 0700 it",
            )

    def __enter__(self) -> Folder:  # noqa: PYI034  typing.Self is not in Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def mine(self) -> bool:
        """Whether files that we write here would be read by the processes that this folder is for."""
        return self._owner == os.geteuid()

    def names(self) -> list[str]:
        return os.listdir(self._descriptor)  # noqa: PTH208  a Path cannot be a descriptor

    def open(self, name: str) -> int:
        """A descriptor for reading. Raises UnfitFileError; FileNotFoundError when it has gone in the meantime."""
        try:
            descriptor = os.open(name, os.O_RDONLY | _OPEN, dir_fd=self._descriptor)
        except FileNotFoundError:
            raise
        except OSError as error:  # a symbolic link among others
            raise UnfitFileError("not_a_file" if error.errno == errno.ELOOP else "unreadable") from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            reason = "not_a_file"
        elif status.st_uid != self._owner or status.st_mode & 0o022:
            reason = "foreign_owner"
        else:
            return descriptor
        os.close(descriptor)
        raise UnfitFileError(reason)

    def create(self, token: bytes) -> int:
        """A new unfinished file, locked by us until every copy of the descriptor is closed. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN
        descriptor = os.open(_UNFINISHED + token.hex(), flags, 0o600, dir_fd=self._descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def finish(self, token: bytes, name: str) -> None:
        """Give an unfinished file its name, in place of what had it. Raises OSError."""
        unfinished = _UNFINISHED + token.hex()
        os.rename(unfinished, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def age(self, name: str) -> float:
        """Seconds since the file was written last; 0 when it has gone."""
        try:
            return time.time() - os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_mtime
        except OSError:
            return 0.0

    def identity(self, name: str) -> tuple[int, int] | None:
        """Which file it is that has this name now: another one once it is replaced. None when there is none."""
        try:
            status = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def remove_unfinished(self) -> None:
        """Remove what processes left that were killed while they created a file."""
        for name in self.names():
            if not name.startswith(_UNFINISHED) or self.age(name) < _ABANDONED:
                continue
            with contextlib.suppress(OSError, UnfitFileError):
                descriptor = self.open(name)
                try:
                    if not is_locked(descriptor):
                        self.remove(name)
                finally:
                    os.close(descriptor)

    @contextlib.contextmanager
    def shared(self) -> Iterator[bool]:
        """Keep the folder from being folded while it is read. False when that could not be had within 0.1 s."""
        with self._locked(fcntl.LOCK_SH, patience=0.1, create=False) as held:
            yield held

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Fold alone. False, at once, when somebody reads or folds just now, or when the folder is not ours to write."""
        with self._locked(fcntl.LOCK_EX, patience=0.0, create=True) as held:
            yield held

    @contextlib.contextmanager
    def _locked(self, kind: int, *, patience: float, create: bool) -> Iterator[bool]:
        flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
        try:
            descriptor = os.open(_LOCK, flags | _OPEN, 0o600, dir_fd=self._descriptor)
        except OSError:
            yield not create  # without a lock file nobody has folded yet
            return
        try:
            yield _acquire(descriptor, kind, patience)
        finally:
            os.close(descriptor)


def _acquire(descriptor: int, kind: int, patience: float) -> bool:
    end = time.monotonic() + patience
    while not _try_lock(descriptor, kind):
        if time.monotonic() >= end:
            return False
        time.sleep(0.002)
    return True


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_locked(descriptor: int) -> bool:
    """Whether the process that wrote this file still lives. Where it does not, the descriptor shares the lock now."""
    return not _try_lock(descriptor, fcntl.LOCK_SH)
