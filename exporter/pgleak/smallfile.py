"""Small files that somebody else writes, read whole: within a bound, and without waiting for what never comes."""

from __future__ import annotations

import errno
import os
import select
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 1024 * 1024
"""Bytes that a file may have: room for thousands of targets, or for all public authorities."""

_PATIENCE = 30.0  # seconds until something comes out of a pipe


def content(path: Path, largest: int = LARGEST, *, pipe: bool = False) -> bytes:
    """Return what a file holds. Raises OSError, whose ``strerror`` says what is wrong and quotes nothing of the file.

    A pipe is taken only where it is read once: a second reading would find it empty, and what an empty file means, such
    as no passwords at all, is not what was meant.
    """
    kind = path.stat().st_mode
    if stat.S_ISDIR(kind):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not (stat.S_ISREG(kind) or (pipe and stat.S_ISFIFO(kind))):
        wanted = "neither a file nor a pipe" if pipe else "not a regular file, and only such a one can be read again"
        raise OSError(errno.ENODEV, wanted)
    # Without waiting, for a named pipe may never have a writer. What a shell passes on as <(...) has one from the start.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        waiting = select.poll()
        waiting.register(file, select.POLLIN)
        if not waiting.poll(_PATIENCE * 1000):
            raise OSError(errno.ETIMEDOUT, f"nothing came out of the pipe within {_PATIENCE:g} s")
        os.set_blocking(file.fileno(), True)
        found = file.read(largest + 1)
    if len(found) > largest:
        raise OSError(errno.EFBIG, f"too large: {largest:,} bytes are allowed")
    return found
