"""Which process this is, and what a fork changes."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from pgleak.pool.snapshot import ProcessIdentity

_known: dict[int, tuple[float, str]] = {}  # by pid; after a fork there is another


def identity(application_name: str) -> ProcessIdentity:
    """This process, as it will be called all its life."""
    pid = os.getpid()
    known = _known.get(pid)
    if known is None:
        known = (_started(), _boot())
        _known.clear()
        _known[pid] = known
    return ProcessIdentity(pid, known[0], known[1], platform.node(), application_name)


def lives(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def _started() -> float:
    """When the kernel started this process; where it does not say, when pgleak was first asked."""
    try:
        # the name in the second field may hold blanks and parentheses
        ticks = int(
            Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
        )
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return time.time()
    return round(time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK"), 2)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
