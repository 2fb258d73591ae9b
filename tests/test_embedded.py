"""The embedded PostgreSQL: quick, on its own, and gone without a trace."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest

import servers
from pgleak import demo
from pgleak.demo import reaper
from pgleak.demo.binaries import PostgresNotFoundError, copy_programs, find_binaries
from pgleak.demo.embedded import EmbeddedPostgres, PortTakenError, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Connect, NewPostgres

# Starts a server, says where, and waits for the end, whatever kind of end it gets.
PROGRAM = """
import sys, time
from pathlib import Path
from pgleak.demo.embedded import EmbeddedPostgres
with EmbeddedPostgres(bin_dir=Path(sys.argv[1])) as server:
    print(server.folder.parent, server.pid, server.port, flush=True)
    if "freeze" in sys.argv:
        server.freeze()
    sys.stdin.read()
"""


class Starter:
    """Another Python process with an embedded server in it."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(find_binaries(18)), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        folder, postmaster, port = self.process.stdout.readline().split()
        self.folder, self.postmaster, self.port = Path(folder), int(postmaster), int(port)

    def left_behind(self) -> list[str]:
        """Name what is still there of the server."""
        left = [str(self.folder)] if self.folder.exists() else []
        return left + [f"process {self.postmaster}"] * reaper.is_running(self.postmaster)


@pytest.fixture
def starter(request: pytest.FixtureRequest) -> Iterator[Starter]:
    other = Starter(*getattr(request, "param", ()))
    with other.process:
        yield other
        other.process.kill()


def test_each_version_starts_and_says_its_number(postgres: EmbeddedPostgres, connect: Connect) -> None:
    [(version,)] = servers.query(connect(postgres), "SELECT current_setting('server_version_num')::int / 10000")
    assert version == postgres.version


def test_only_the_first_server_of_a_version_costs_an_initdb(new_postgres: NewPostgres, connect: Connect) -> None:
    identifiers = [
        servers.query(connect(new_postgres(18)), "SELECT system_identifier FROM pg_control_system()") for _ in range(2)
    ]
    assert identifiers[0] == identifiers[1]


def test_servers_run_side_by_side_with_settings_of_their_own(new_postgres: NewPostgres, connect: Connect) -> None:
    small, large = (
        new_postgres(16, max_connections=7),
        new_postgres(16, max_connections=71, cluster_name="it's \\"),
    )
    assert servers.query(connect(small), "SHOW max_connections") == [("7",)]
    assert servers.query(connect(large), "SHOW max_connections") == [("71",)]
    assert servers.query(connect(large), "SHOW cluster_name") == [("it's \\",)]


def test_the_socket_lies_in_a_folder_that_only_its_owner_enters(new_postgres: NewPostgres) -> None:
    server = new_postgres()
    assert server.socket_dir.stat().st_mode & 0o077 == 0
    psycopg2.connect(server.dsn(over_socket=True)).close()


@pytest.mark.parametrize("over_socket", [False, True], ids=["tcp", "socket"])
def test_chosen_users_need_their_password(new_postgres: NewPostgres, over_socket: bool) -> None:
    server = new_postgres(password_users=('o"neil', "other"))
    servers.run_sql(server, """CREATE ROLE "o""neil" LOGIN PASSWORD 'a b/@:?%'""")
    psycopg2.connect(server.dsn('o"neil', password="a b/@:?%", over_socket=over_socket)).close()
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(server.dsn('o"neil', password="wrong", over_socket=over_socket))


def test_without_trust_on_loopback_only_the_private_socket_lets_the_superuser_in() -> None:
    """Otherwise any user of the machine could run programs as the user who started the server."""
    with EmbeddedPostgres(trust_loopback=False) as server:
        psycopg2.connect(server.dsn(over_socket=True)).close()
        with pytest.raises(psycopg2.OperationalError, match="no password supplied"):
            psycopg2.connect(server.dsn())


def test_restart_keeps_port_and_data_and_takes_new_settings(new_postgres: NewPostgres, connect: Connect) -> None:
    server = new_postgres(18)
    port = server.port
    servers.run_sql(server, "CREATE TABLE kept (n int)")
    server.restart(settings={"max_connections": 33})
    assert server.port == port
    assert servers.query(connect(server), "SELECT count(*), current_setting('max_connections') FROM kept") == [
        (0, "33")
    ]


def test_a_killed_server_is_gone_at_once_and_starts_again(new_postgres: NewPostgres, connect: Connect) -> None:
    server = new_postgres(16)
    connection = connect(server)
    family = [server.pid, *reaper.children(server.pid)]
    server.kill()
    assert not any(map(reaper.is_running, family))
    with pytest.raises(psycopg2.OperationalError):
        servers.query(connection, "SELECT 1")
    server.start()
    assert servers.query(connect(server), "SELECT 1") == [(1,)]


def test_a_frozen_server_accepts_connections_and_does_not_answer(new_postgres: NewPostgres) -> None:
    server = new_postgres(18)
    server.freeze()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")  # may we speak TLS?
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        server.thaw()
        client.settimeout(5)
        assert client.recv(1) in (b"N", b"S")


def test_a_port_that_is_taken_is_an_error_with_the_servers_own_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = EmbeddedPostgres(port=taken.getsockname()[1])
        with pytest.raises(PortTakenError, match="could not bind IPv4 address"):
            server.__enter__()


def test_a_setting_that_is_wrong_is_an_error_with_the_servers_own_words() -> None:
    with pytest.raises(RuntimeError, match='unrecognized configuration parameter "max_conections"'):
        EmbeddedPostgres(settings={"max_conections": 5}).__enter__()


def test_a_missing_version_says_how_to_install_it() -> None:
    with pytest.raises(PostgresNotFoundError, match="apt-get install postgresql-99"):
        find_binaries(99)


def test_closing_leaves_no_file_no_process_and_no_shared_memory(connect: Connect) -> None:
    with EmbeddedPostgres() as server:
        connect(server)
        folder, family = server.folder, [server.pid, *reaper.children(server.pid)]
        segment = (server.data_dir / "postmaster.pid").read_text().splitlines()[6].split()[1]
        server.freeze()
    assert not folder.exists()
    assert not any(map(reaper.is_running, family))
    assert segment not in _shared_memory_segments()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_starting_process_is_ended(starter: Starter, number: signal.Signals) -> None:
    starter.process.send_signal(number)
    starter.process.wait(10)
    servers.wait_until(lambda: not starter.left_behind(), what="the server to be gone")


@pytest.mark.parametrize("starter", [("freeze",)], indirect=True)
def test_nothing_is_left_of_a_frozen_server_when_the_starting_process_is_killed(starter: Starter) -> None:
    family = [starter.postmaster, *reaper.children(starter.postmaster)]
    segment = (starter.folder / "1" / "data" / "postmaster.pid").read_text().splitlines()[6].split()[1]
    starter.process.kill()
    servers.wait_until(lambda: not starter.left_behind(), what="the server to be gone")
    assert not any(map(reaper.is_running, family))
    assert segment not in _shared_memory_segments()


def test_the_end_of_a_thread_or_of_a_forked_child_does_not_end_the_server(
    new_postgres: NewPostgres, connect: Connect
) -> None:
    """A parent-death signal would end it with the thread; an exit handler with the child."""
    server = new_postgres()
    child = subprocess.run(
        [sys.executable, "-c", _FORKING, str(find_binaries(18))], capture_output=True, text=True, check=True
    )
    assert child.stdout.split() == ["child", "alive"]
    assert servers.query(connect(server), "SELECT 1") == [(1,)]


_FORKING = """
import os, sys, threading
from pathlib import Path
from pgleak.demo.embedded import EmbeddedPostgres
server = EmbeddedPostgres(bin_dir=Path(sys.argv[1]))
thread = threading.Thread(target=server.start)
thread.start()
thread.join()
if os.fork() == 0:
    print("child", flush=True)
    sys.exit()
os.wait()
print("alive" if server.is_running else "dead")
server.close()
"""


def test_an_ordinary_user_starts_a_server_as_himself(tmp_path: Path) -> None:
    """And so does root, for whom the server runs as another user."""
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    home = Path("/tmp") / f"pgleak-test-{os.getpid()}"
    package = home / "pgleak"
    try:
        # The checkout and the environment may lie in a folder that other users may not enter.
        shutil.copytree(Path(demo.__file__).parent, package / "demo")
        (package / "__init__.py").touch()
        bin_dir = copy_programs(find_binaries(18), home / "programs")
        subprocess.run(["chmod", "-R", "a+rX", home], check=True)
        answer = subprocess.run(
            [_python_for_everybody(), "-c", PROGRAM, str(bin_dir)],
            input="",
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"PATH": os.defpath, "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )
    finally:
        shutil.rmtree(home)
    assert answer.returncode == 0, answer.stderr
    folder, postmaster, _ = answer.stdout.split()
    assert not Path(folder).exists()
    assert not reaper.is_running(int(postmaster))


@pytest.mark.parametrize("version", servers.EMBEDDED)
def test_programs_in_a_folder_of_roots_own_are_used_nevertheless(tmp_path: Path, version: int) -> None:
    """As in a virtual environment below /root, where the account of the server may not enter."""
    hidden = tmp_path / "hidden"
    bin_dir = copy_programs(find_binaries(version), hidden)
    hidden.chmod(0o700)
    with EmbeddedPostgres(bin_dir=bin_dir) as server:
        servers.run_sql(server, "SELECT 1")


def _python_for_everybody() -> str:
    """Find a Python of 3.10 or later that is not hidden in root's home."""
    if os.geteuid() != 0:
        return sys.executable
    candidates = (Path(sys.executable).resolve(), Path("/usr/bin/python3"), Path("/usr/local/bin/python3"))
    for candidate in candidates:
        try:
            version = subprocess.run(
                [candidate, "-c", "import sys; print(sys.version_info >= (3, 10))"],
                capture_output=True,
                text=True,
                check=True,
                cwd="/",
                user="nobody",
            )
        except OSError:
            continue
        if version.stdout.strip() == "True":
            return str(candidate)
    pytest.fail(f"no Python of 3.10 or later that other users may run among {candidates}; apt-get install python3")


def _shared_memory_segments() -> set[str]:
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


def test_a_free_port_is_free() -> None:
    socket.create_server(("127.0.0.1", free_port())).close()
