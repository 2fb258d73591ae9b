"""One temporary folder for each process that starts embedded servers, and the reaper that watches over it."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pgleak.demo import reaper
from pgleak.demo.binaries import copy_programs

if TYPE_CHECKING:
    from collections.abc import Sequence

# A Unix socket's path has at most 107 bytes, and "/pgleak-abcdefgh/99/.s.PGSQL.65535" follows the parent.
_LONGEST_PARENT = 60


class PostgresStartError(RuntimeError):
    """A program of PostgreSQL failed; the text is its own."""


class Scratch:
    """Cluster folders, copies of programs, and fresh data folders to copy from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clusters = 0
        self._programs: dict[Path, Path] = {}
        self._templates: dict[Path, Path] = {}
        # PostgreSQL refuses to run as root, so root lends it the account that is made for owning nothing.
        self._other_account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self.folder = self._make_folder()
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__, self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def _make_folder(self) -> Path:
        problem = "their paths are too long for a Unix socket"
        for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
            if len(os.fsencode(parent)) > _LONGEST_PARENT:
                continue
            try:
                folder = Path(tempfile.mkdtemp(prefix="pgleak-", dir=parent))
            except OSError as error:
                problem = str(error)
                continue
            folder.chmod(0o711 if self._other_account else 0o700)
            try:
                self.run(["true"], folder)
            except OSError as error:
                problem = str(error)
                folder.rmdir()  # in a private folder of root's, say, which PostgreSQL's account may not enter
                continue
            return folder
        raise PostgresStartError(f"PostgreSQL can use no temporary folder; set TMPDIR to another one: {problem}")

    def popen(self, command: Sequence[str | Path], output: int, folder: Path) -> subprocess.Popen[bytes]:
        """Start a program as PostgreSQL's account, without our environment and out of reach of Ctrl-C."""
        account = self._other_account
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env={"PATH": os.defpath, "LC_ALL": "C", "HOME": str(folder)},
            start_new_session=True,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )

    def run(self, command: Sequence[str | Path], folder: Path) -> None:
        """Run a program to its end; its output is the error when it fails."""
        with tempfile.TemporaryFile() as output:
            process = self.popen(command, output.fileno(), folder)
            if process.wait() != 0:
                output.seek(0)
                text = output.read().decode(errors="replace").strip()
                program = Path(command[0]).name
                raise PostgresStartError(f"{program} failed with code {process.returncode}:\n{text}")

    def programs(self, bin_dir: Path) -> Path:
        """Return the folder, or a copy where the account cannot enter, as in an environment below /root."""
        with self._lock:
            if bin_dir not in self._programs:
                try:
                    self.run([bin_dir / "postgres", "--version"], self.folder)
                    self._programs[bin_dir] = bin_dir
                except PermissionError:
                    copy = self.folder / f"programs{len(self._programs)}"
                    self._programs[bin_dir] = copy_programs(bin_dir, copy)
            return self._programs[bin_dir]

    def _make_private_folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(mode=0o700)
        if self._other_account:
            os.chown(folder, self._other_account.pw_uid, self._other_account.pw_gid)
        return folder

    def new_cluster(self, bin_dir: Path) -> Path:
        """Make a folder with a fresh data folder; only the first of each version costs an ``initdb``."""
        programs = self.programs(bin_dir)
        with self._lock:
            self._clusters += 1
            folder = self._make_private_folder(str(self._clusters))
            if bin_dir not in self._templates:
                self._templates[bin_dir] = self._make_template(programs)
            template = self._templates[bin_dir]
        self.run(["cp", "-R", template, folder / reaper.DATA_FOLDER], folder)
        return folder

    def _make_template(self, programs: Path) -> Path:
        home = self._make_private_folder(f"template{len(self._templates)}")
        template = home / "data"
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        self.run([programs / "initdb", "-D", template, "--wal-segsize=1", *options], home)
        return template

    def discard(self, cluster: Path) -> None:
        """Remove the folder of a cluster whose server has ended."""
        shutil.rmtree(cluster)

    def close(self) -> None:
        """End every server and remove the folder."""
        if self._reaper.stdin is not None:
            self._reaper.stdin.close()
        self._reaper.wait()

    def disown(self) -> None:
        """Let go in a forked child: its copy of the pipe would keep the reaper waiting for both processes."""
        if self._reaper.stdin is not None:
            self._reaper.stdin.close()
        self._reaper.returncode = 0  # the parent's child, not ours to wait for


_scratches: list[Scratch] = []
_making = threading.Lock()


def scratch() -> Scratch:
    """Return this process's scratch, made on first use and gone with the process."""
    with _making:
        if not _scratches:
            _scratches.append(Scratch())
        return _scratches[0]


def _close() -> None:
    while _scratches:
        _scratches.pop().close()


def _forget() -> None:
    while _scratches:
        _scratches.pop().disown()
    _making.release()


atexit.register(_close)
os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_forget)
