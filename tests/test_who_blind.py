"""`pgleak who` where something cannot be looked at: it shows what is left, and never says that nothing leaks of it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import servers
from holders.processes import APPLICATION, Fleet, url
from test_server_full import fill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres

LINE = next(n for n, text in enumerate(APPLICATION.read_text().splitlines(), 1) if text.endswith("# TAKEN"))
NOWHERE = ("--dsn", "host=127.0.0.1 port=1 user=nobody dbname=postgres", "--server", "db")


def who(*arguments: str) -> tuple[int, str]:
    """The exit code, and what it says, without line ends."""
    done = subprocess.run(
        [sys.executable, "-m", "pgleak", "who", *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == ""
    assert "nothing l" not in done.stdout.lower(), done.stdout
    return done.returncode, " ".join(done.stdout.split())


@pytest.fixture
def shop(new_postgres: NewPostgres, tmp_path: Path) -> Iterator[tuple[EmbeddedPostgres, Fleet]]:
    server = new_postgres(16, max_connections=12)
    servers.run_sql(server, "CREATE ROLE ordinary LOGIN")
    fleet = Fleet(tmp_path / "state", [])
    fleet.start(url(server, "shop"), "overdue", "overdue")
    servers.wait_until(lambda: who(*NOWHERE, "--pool-dir", str(fleet.folder), "--diagnose")[1].count("shop leaks on"))
    yield server, fleet
    fleet.close()


def test_a_full_server_leaves_what_the_processes_report(shop: tuple[EmbeddedPostgres, Fleet]) -> None:
    server, fleet = shop
    opened = fill(server, "ordinary")
    source = ("--dsn", server.dsn("ordinary"), "--pool-dir", str(fleet.folder))
    code, told = who(*source, "--diagnose")
    assert told.startswith(f"127.0.0.1:{server.port} cannot be read (slots_exhausted: ")
    assert "this is what the processes report" in told
    assert f"shop leaks on 127.0.0.1:{server.port}: 2 of its 2 connections" in told
    assert f"application.py:{LINE} in __main__:take" in told
    assert code == 0
    code, told = who(*source, "--once")
    assert "2 suspect connections, 1 process reporting" in told
    assert "cannot be read (slots_exhausted: " in told
    assert code == 0
    assert "or ask as a superuser, for whom slots are kept: --dsn" in told
    as_superuser = ("--dsn", server.dsn(), "--pool-dir", str(fleet.folder), "--diagnose")
    assert "10 of 9 usable connections taken, full now" in who(*as_superuser)[1]
    for one in opened:
        one.close()


@pytest.mark.parametrize("form", ["--once", "--diagnose"])
def test_with_nothing_to_judge_by_it_cannot_tell(tmp_path: Path, form: str) -> None:
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o700)
    for arguments in (
        NOWHERE,
        ("--pool-dir", str(tmp_path / "missing")),
        (*NOWHERE, "--pool-dir", str(tmp_path / "missing")),
        (*NOWHERE, "--pool-dir", str(empty)),
        ("--pool-dir", str(empty)),
    ):
        code, told = who(*arguments, form)
        assert code == 1
        assert "annot tell" in told
        assert ("db cannot be read: unreachable" in told) is ("--dsn" in arguments)
        missing = f"{tmp_path}/missing: does not exist".replace(" ", "")  # however the line was broken
        assert (missing in told.replace(" ", "")) is (arguments[-1].endswith("missing"))


def test_a_role_that_sees_no_states_cannot_tell(shop: tuple[EmbeddedPostgres, Fleet]) -> None:
    """With what the processes report beside it, it tells what those know."""
    server, fleet = shop
    source = ("--dsn", server.dsn("ordinary"), "--diagnose")
    code, told = who(*source)
    assert code == 1
    assert told.startswith("Cannot tell: ")
    assert "hides states and times from this role: `pgleak grants`" in told
    assert who(*source, "--pool-dir", str(fleet.folder))[0] == 0


def test_a_folder_that_is_open_to_others_is_said_with_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    code, told = who("--pool-dir", str(folder), "--diagnose")
    assert (code, "mode 0755 lets other users in; chmod 0700 it" in told) == (1, True)
