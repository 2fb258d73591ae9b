"""A real PostgreSQL for the length of a ``with`` block: no system service, no root, nothing left behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlencode

from pgleak.demo import reaper
from pgleak.demo.binaries import find_binaries, major_version
from pgleak.demo.scratch import PostgresStartError, scratch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path
    from types import TracebackType

    Setting = str | int | float

SUPERUSER = "postgres"
LOOPBACK = "127.0.0.1"

_SETTINGS: Mapping[str, Setting] = {
    # The data live for a minute, so nothing has to survive a power cut.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_wal_size": "64MB",
    "huge_pages": "off",
    # Files in the data folder rather than in /dev/shm, where they would outlive a killed server.
    "dynamic_shared_memory_type": "mmap",
    "password_encryption": "scram-sha-256",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] ",
}
_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_WAYS_IN = (("local", ""), ("host", f"{LOOPBACK}/32"))
_POLL = 0.01


class PortTakenError(PostgresStartError):
    """Another program listens on the port."""


class EmbeddedPostgres:
    """One PostgreSQL server of its own, on loopback and on a Unix socket in a private folder.

    ``version`` is a major version (16 and 18 come with the demo's wheel, others from the system's packages),
    or ``bin_dir`` names a folder with the programs. Everybody is trusted, except that ``password_users`` need
    their password everywhere, and that without ``trust_loopback`` everybody needs one over TCP: on a machine
    with other users, a superuser who is trusted over TCP would let them run programs as you.

    Started as root, PostgreSQL runs as ``nobody``.
    """

    def __init__(
        self,
        version: int | None = None,
        *,
        bin_dir: Path | None = None,
        settings: Mapping[str, Setting] | None = None,
        port: int = 0,
        password_users: Collection[str] = (),
        trust_loopback: bool = True,
    ) -> None:
        self._bin_dir = bin_dir or find_binaries(version)
        self.version = major_version(self._bin_dir)
        self.port = port
        self._settings: dict[str, Setting] = {**_SETTINGS, **(settings or {})}
        self._password_users = tuple(password_users)
        self._trust_loopback = trust_loopback
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """Holds the data folder, the log and the socket; exists from the first start until :meth:`close`."""
        if self._folder is None:
            raise RuntimeError("the server was never started, or is closed")
        return self._folder

    @property
    def data_dir(self) -> Path:
        return self.folder / reaper.DATA_FOLDER

    @property
    def log_file(self) -> Path:
        return self.folder / "server.log"

    @property
    def socket_dir(self) -> Path:
        return self.folder

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def start(self, timeout: float = 30) -> None:
        """Start and wait until logins are accepted. The port stays the same from the first start on."""
        if self.is_running:
            return
        if self._folder is None:
            self._folder = scratch().new_cluster(self._bin_dir)
            self._write_hba()
        if self.port:
            self._start(timeout)
            return
        for attempts_left in reversed(range(5)):
            self.port = free_port()
            try:
                self._start(timeout)
                break
            except PortTakenError:
                if not attempts_left:
                    raise

    def _start(self, timeout: float) -> None:
        self._write_settings()
        postgres = scratch().programs(self._bin_dir) / "postgres"
        # The shell notes its own id and becomes the server, so that the reaper knows of each server that
        # exists, and a server whose folder is already gone does not begin.
        script = f'echo $$ >{reaper.PID_FILE} && exec "$0" -D "$1"'
        command: list[str | Path] = ["/bin/sh", "-c", script, postgres, self.data_dir]
        with self.log_file.open("ab") as log:
            beginning = log.tell()
            self._process = scratch().popen(command, log.fileno(), self.folder)
        deadline = time.monotonic() + timeout
        while not self._accepts_logins(self._process.pid):
            if self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(_POLL)
                continue
            self.kill()
            text = self.log_file.read_bytes()[beginning:].decode(errors="replace").strip()
            error = PortTakenError if "could not create any TCP/IP sockets" in text else PostgresStartError
            raise error(f"PostgreSQL {self.version} did not start on port {self.port}:\n{text}")

    def _accepts_logins(self, pid: int) -> bool:
        # What pg_ctl looks at: the lock file's first line is the postmaster, its eighth becomes "ready".
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast", timeout: float = 20) -> None:
        """Shut down as ``pg_ctl stop`` does; thaw a frozen server, kill one that does not end in time."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(_STOP_SIGNALS[mode])
            self._thaw(self._process.pid)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL the postmaster and all its children, which is what the kernel does when memory runs out."""
        if self._process is None:
            return
        if self._process.poll() is None:
            reaper.kill_tree(self._process.pid)
        self._process.wait()
        reaper.remove_shared_memory(self.data_dir)
        self._process = None

    def restart(
        self,
        mode: Literal["smart", "fast", "immediate"] = "fast",
        settings: Mapping[str, Setting] | None = None,
    ) -> None:
        """Stop and start on the same port, perhaps with some settings changed."""
        self.stop(mode)
        self._settings.update(settings or {})
        self.start()

    def freeze(self) -> None:
        """SIGSTOP the postmaster and its children: the kernel still accepts connections, nobody answers."""
        reaper.freeze_tree(self.pid)

    def thaw(self) -> None:
        """Undo :meth:`freeze`."""
        self._thaw(self.pid)

    def _thaw(self, pid: int) -> None:
        reaper.send(signal.SIGCONT, *reaper.children(pid), pid)

    def close(self) -> None:
        """End the server and remove its files."""
        self.stop("immediate", timeout=8)
        if self._folder is not None:
            scratch().discard(self._folder)
            self._folder = None

    def dsn(
        self,
        user: str = SUPERUSER,
        dbname: str = "postgres",
        *,
        password: str | None = None,
        over_socket: bool = False,
        **parameters: str,
    ) -> str:
        """Return a connection URI; further libpq parameters, such as ``application_name``, as keywords."""
        secret = f":{quote(password, safe='')}" if password is not None else ""
        host = f"{LOOPBACK}:{self.port}"
        if over_socket:
            host, parameters = "", {"host": str(self.socket_dir), "port": str(self.port), **parameters}
        query = f"?{urlencode(parameters, quote_via=quote)}" if parameters else ""
        return f"postgresql://{quote(user, safe='')}{secret}@{host}/{quote(dbname, safe='')}{query}"

    def _write_settings(self) -> None:
        places = {"listen_addresses": LOOPBACK, "port": self.port, "unix_socket_directories": self.socket_dir}
        # This file is there from initdb on and belongs to PostgreSQL's account; a new one might be root's.
        (self.data_dir / "postgresql.auto.conf").write_text(
            "".join(f"{name} = {_quoted(value)}\n" for name, value in {**places, **self._settings}.items())
        )

    def _write_hba(self) -> None:
        by_kind = {"local": "trust", "host": "trust" if self._trust_loopback else "scram-sha-256"}
        users = ",".join('"' + user.replace('"', '""') + '"' for user in self._password_users)
        lines = [f"{kind} all {users} {address} scram-sha-256" for kind, address in _WAYS_IN if users]
        for database in ("all", "replication"):
            lines += [f"{kind} {database} all {address} {by_kind[kind]}" for kind, address in _WAYS_IN]
        (self.data_dir / "pg_hba.conf").write_text("\n".join(lines) + "\n")

    def __enter__(self) -> EmbeddedPostgres:  # noqa: PYI034  typing.Self is not in Python 3.10
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<EmbeddedPostgres {self.version} on port {self.port}>"


def free_port() -> int:
    """Find a loopback TCP port on which nobody listened a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _quoted(value: object) -> str:
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"
