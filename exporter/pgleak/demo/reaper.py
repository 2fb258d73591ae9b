"""Ends embedded PostgreSQL servers and removes their files, also when whoever started them was killed.

This file is a module and a program. As a program it waits until its standard input is closed, which the
kernel does when the process that holds the other end dies, however it dies. The obvious alternative,
PR_SET_PDEATHSIG, ends the child with the *thread* that made it, is cleared by a change of user, and removes
no files.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PID_FILE = "pid"
DATA_FOLDER = "data"
_POLL = 0.01


def _ps(*arguments: str) -> list[str]:
    try:
        answer = subprocess.run(["ps", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # a slim container; it has /proc
        return []
    return answer.stdout.splitlines()


def _state(pid: int) -> str:
    """Return the letter of a process's state, or Z, as for one that has ended, when it is gone."""
    if not Path("/proc/self/stat").exists():
        return "".join(_ps("-o", "stat=", "-p", str(pid)))[:1] or "Z"
    try:
        # The name between the brackets may itself hold spaces and brackets.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def children(pid: int) -> list[int]:
    """List the direct children of a process. A postmaster has no other descendants."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # not Linux, or a kernel without this file
        pairs = (line.split() for line in _ps("-A", "-o", "pid=,ppid="))
        return [int(child) for child, parent in pairs if int(parent) == pid]


def is_running(pid: int) -> bool:
    """Say whether a process is there; one that has ended and waits for its parent to notice is not."""
    return _state(pid) not in "ZX"


def is_stopped(pid: int) -> bool:
    """Say whether a process stands still, by SIGSTOP or because it has ended."""
    return _state(pid) in "TtZX"


def send(signal_number: signal.Signals, *pids: int) -> None:
    """Send a signal to each process that still is there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal_number)


def freeze_tree(postmaster: int) -> tuple[int, ...]:
    """SIGSTOP the postmaster, then, as it can start no more of them, its children. Returns them all."""
    family: tuple[int, ...] = (postmaster,)
    deadline = time.monotonic() + 5
    for _ in range(2):
        send(signal.SIGSTOP, *family)
        while not all(map(is_stopped, family)) and time.monotonic() < deadline:
            time.sleep(_POLL)
        family = (postmaster, *children(postmaster))
    return family


def kill_tree(postmaster: int) -> None:
    """SIGKILL the postmaster and its children, and wait until they are gone."""
    family = freeze_tree(postmaster)
    send(signal.SIGKILL, *family)
    deadline = time.monotonic() + 10
    while any(map(is_running, family)) and time.monotonic() < deadline:
        time.sleep(_POLL)


def remove_shared_memory(data_dir: Path) -> None:
    """Remove the System V segment that outlives a killed postmaster; line 7 of its lock file has the id."""
    try:
        lines = (data_dir / "postmaster.pid").read_text().splitlines()
        segment = int(lines[6].split()[1])
    except (OSError, IndexError, ValueError):
        return
    ctypes.CDLL(None).shmctl(segment, 0, None)  # IPC_RMID is 0 on every system PostgreSQL runs on


def _is_postmaster(pid: int, data_dir: Path) -> bool:
    """Guard against a process id that now belongs to somebody else."""
    if Path("/proc/self/cmdline").exists():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return False
    else:
        command = " ".join(_ps("-o", "command=", "-p", str(pid)))
    return str(data_dir) in command


def end_cluster(folder: Path) -> None:
    """End the server of one cluster folder, whatever state it is in, and its shared memory."""
    data_dir = folder / DATA_FOLDER
    try:
        postmaster = int((folder / PID_FILE).read_text())
    except (OSError, ValueError):
        return
    if _is_postmaster(postmaster, data_dir):
        send(signal.SIGQUIT, postmaster)
        send(signal.SIGCONT, *children(postmaster), postmaster)
        deadline = time.monotonic() + 3
        while is_running(postmaster) and time.monotonic() < deadline:
            time.sleep(_POLL)
        if is_running(postmaster):
            kill_tree(postmaster)
    remove_shared_memory(data_dir)


def clear(scratch: Path) -> None:
    """End every cluster below the folder and remove it."""
    for pid_file in scratch.glob(f"*/{PID_FILE}"):
        end_cluster(pid_file.parent)
    deadline = time.monotonic() + 5
    while scratch.exists() and time.monotonic() < deadline:
        # A server that was just starting may still create a file, and gives up when its folder is gone.
        shutil.rmtree(scratch, ignore_errors=True)


def main(scratch: Path) -> None:
    """Wait for the end of the process that holds our standard input, then tidy up after it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the other process is the only reason to stop
    while os.read(0, 4096):
        pass
    clear(scratch)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
