"""Many askers share one read of a server, and each read sees it as it is now."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import watching
from pgleak.postgres.reader import Reader
from pgleak.settings import Timeouts
from servers import query, wait_until

if TYPE_CHECKING:
    import pytest

    from conftest import Connect, NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres


def test_counts_are_never_stale(postgres: EmbeddedPostgres, connect: Connect, readers: list[Reader]) -> None:
    """Inside a transaction pg_stat_activity would be frozen; each read sees what has changed since."""
    reader = watching.reader(postgres)
    readers.append(reader)
    for number in range(1, 4):
        connect(postgres, application_name="newcomer")
        wait_until(lambda: watching.connections(watching.read(reader))["newcomer"]["idle"] == number)  # noqa: B023  at once


def test_an_impatient_asker_costs_nobody_anything(
    new_postgres: NewPostgres, connect: Connect, readers: list[Reader]
) -> None:
    """It gets no answer; the others get theirs from the same read, and the exporter keeps its session."""
    server = new_postgres(18)
    reader = watching.reader(server, timeouts=Timeouts(lock=30.0))
    readers.append(reader)
    assert watching.read(reader).server
    session, blocker = connect(server), connect(server)
    pid = watching.own_pid(session)
    query(blocker, "BEGIN")
    query(blocker, "LOCK TABLE pg_catalog.pg_database IN ACCESS EXCLUSIVE MODE")
    with ThreadPoolExecutor(1) as patient:
        waiting = patient.submit(watching.read, reader)
        wait_until(lambda: reader._flight is not None and not reader._flight.done.is_set())
        impatient = [watching.read(reader, 0.05) for _ in range(5)]
        query(blocker, "ROLLBACK")
        assert waiting.result().server
    assert {each.reason for each in impatient} == {"timeout"}
    assert impatient[-1].errors["timeout"] == 1, "one read, one failure, however many could not wait"
    assert watching.own_pid(session) == pid


def test_twenty_concurrent_scrapes_are_one_read(new_postgres: NewPostgres, connect: Connect) -> None:
    """All twenty meet while a lock holds the first one up, so that none can come too late to share it."""
    server = new_postgres(18, log_statement="all")
    reader = watching.reader(server, timeouts=Timeouts(lock=30.0))
    assert watching.read(reader).server
    before = reads(server)
    blocker = connect(server)
    query(blocker, "BEGIN")
    query(blocker, "LOCK TABLE pg_catalog.pg_database IN ACCESS EXCLUSIVE MODE")
    deadline = time.monotonic() + 20

    with ThreadPoolExecutor(20) as askers:
        flights = list(askers.map(lambda _: reader.start(), range(20)))
        query(blocker, "ROLLBACK")
        answers = list(askers.map(lambda flight: reader.finish(flight, deadline), flights))

    assert all(answer.server for answer in answers)
    assert reads(server) - before == 1
    reader.close()


def test_one_thread_reads_and_ends_with_the_reader(postgres: EmbeddedPostgres) -> None:
    one = watching.target(postgres, "threads")
    reader = Reader(one, watching.settings(one))

    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "pgleak-threads"]

    for _ in range(3):
        assert watching.read(reader).server
        assert threads() == ["pgleak-threads"]
    reader.close()
    wait_until(lambda: not threads())
    assert watching.read(reader).server, "it comes back when it is asked again"
    reader.close()
    wait_until(lambda: not threads())


def test_a_fault_of_ours_costs_one_read_and_not_the_session(
    postgres: EmbeddedPostgres,
    connect: Connect,
    readers: list[Reader],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It happens while the server still works on the second statement: its answer is not taken for the next one's."""
    reader = watching.reader(postgres)
    readers.append(reader)
    assert watching.read(reader).server
    session = connect(postgres)
    pid = watching.own_pid(session)
    with monkeypatch.context() as broken:
        broken.setattr(reader._namer, "places", lambda *_: 1 / 0)
        failed = watching.read(reader)
        watching.read(reader)
    assert (failed.reason, failed.detail) == ("other", "internal error: ZeroDivisionError")
    (told,) = [text for text in caplog.messages if "please report it" in text]
    assert told.startswith("server db cannot be read: internal error (ZeroDivisionError)")
    assert "in places" not in told
    assert "reader.py" in told
    after = watching.read(reader)
    assert after.server
    assert after.used == sum(sum(states.values()) for states in watching.connections(after).values())
    assert watching.own_pid(session) == pid


def reads(server: EmbeddedPostgres) -> int:
    """How often the server was asked for its sessions, by its own log of statements."""
    return server.log_file.read_text().count("EXECUTE pgleak_activity")
