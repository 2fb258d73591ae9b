"""An answer that comes too late costs the reads until then: not the session, and not one read more."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

import watching
from pgleak.dsn import Dsn
from pgleak.postgres.held import HeldConnection
from pgleak.postgres.reasons import ReadError
from pgleak.settings import Timeouts
from servers import query

if TYPE_CHECKING:
    from conftest import Connect, NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.postgres.reader import Reader


@pytest.mark.parametrize(
    "slow",
    [
        "SET idle_session_timeout",
        "PREPARE pgleak_activity",
        "EXECUTE pgleak_activity",
        "PREPARE pgleak_server",
        "EXECUTE pgleak_server",
    ],
)
def test_whichever_statement_is_slow_the_next_read_goes_on_in_the_same_session(
    slow: str, postgres18: EmbeddedPostgres, readers: list[Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = watching.reader(postgres18, timeouts=Timeouts(scrape=1.0, scrape_offset=0.1, connect=1.0))
    readers.append(reader)
    held = reader._connection
    begin = held._begin
    stopped: list[int] = []

    def stopping(statement: str) -> None:
        if statement.startswith(slow) and not stopped:
            stopped.append(pid(held))
            os.kill(stopped[0], signal.SIGSTOP)
        begin(statement)

    monkeypatch.setattr(held, "_begin", stopping)
    try:
        reasons = [watching.read(reader).reason for _ in range(2)]
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)
    assert reasons == ["timeout", "timeout"]
    for _ in range(2):
        after = watching.read(reader)
        assert after.server, after.detail
    assert [pid(held)] == stopped


def test_a_refusal_to_prepare_that_comes_late_is_tried_again(new_postgres: NewPostgres, connect: Connect) -> None:
    server = new_postgres(18)
    held = HeldConnection(Dsn.parse(server.dsn()), Timeouts(lock=1.0))
    held.ensure(time.monotonic() + 8)
    session = pid(held)
    blocker = connect(server)
    query(blocker, "BEGIN")
    query(blocker, "LOCK TABLE pg_catalog.pg_authid IN ACCESS EXCLUSIVE MODE")
    roles = ("roles", "SELECT rolname FROM pg_roles")
    with pytest.raises(ReadError) as failure:
        held.run(*roles, time.monotonic() + 0.1)
    assert failure.value.reason == "timeout"
    held.ensure(time.monotonic() + 8)  # waits until lock_timeout has ended the PREPARE
    query(blocker, "ROLLBACK")
    assert ("postgres",) in held.run(*roles, time.monotonic() + 8)
    assert pid(held) == session
    held.close()


@pytest.mark.parametrize("behind_our_back", ["PREPARE one AS SELECT 1", "DEALLOCATE one"])
def test_a_session_that_has_prepared_something_else_than_we_think_is_given_up(
    behind_our_back: str, postgres18: EmbeddedPostgres
) -> None:
    """Whatever brought it about: every later read would be refused in good order, and in vain."""
    held = HeldConnection(Dsn.parse(postgres18.dsn()), Timeouts())
    deadline = time.monotonic() + 8
    held.ensure(deadline)
    if behind_our_back.startswith("DEALLOCATE"):
        held.run("one", "SELECT 1", deadline)
    held.execute(behind_our_back, deadline)
    with pytest.raises(ReadError):
        held.run("one", "SELECT 1", deadline)
    held.ensure(deadline)
    assert held.run("one", "SELECT 1", deadline) == [(1,)]
    held.close()


def pid(held: HeldConnection) -> int:
    assert held._connection is not None
    return held._connection.info.backend_pid
