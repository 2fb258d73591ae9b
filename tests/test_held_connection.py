"""The one connection that is held: harmless to the server, patient with it, and never behind a pooler."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest

import watching
from pgleak.dsn import Dsn
from pgleak.postgres.held import HeldConnection
from pgleak.postgres.reader import Reader
from pgleak.postgres.reasons import ReadError
from pgleak.settings import Target, Timeouts
from servers import query, run_sql, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Connect, NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres


def test_the_held_connection_is_harmless(new_postgres: NewPostgres, connect: Connect, readers: list[Reader]) -> None:
    """One slot; no transaction; limits on statements and locks; a name of its own; not ended by idle_session_timeout."""
    server = new_postgres(18, idle_session_timeout="300ms")
    reader = watching.reader(server)
    readers.append(reader)
    for _ in range(5):
        assert watching.read(reader).server
    session = connect(server)
    query(session, "SET idle_session_timeout = 0")

    rows = query(
        session,
        "SELECT pid, state, xact_start, backend_xid, backend_xmin FROM pg_stat_activity WHERE application_name = 'pgleak'",
    )
    assert len(rows) == 1
    pid, *rest = rows[0]
    assert rest == ["idle", None, None, None]
    assert query(session, "SELECT count(*) FROM pg_locks WHERE pid = %s", pid) == [(0,)]

    shown = {}
    deadline = time.monotonic() + 5
    for name in (
        *("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"),
        *("default_transaction_read_only", "search_path"),
        *("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count"),
    ):
        ((shown[name],),) = reader._connection.execute(f"SHOW {name}", deadline)
    assert shown["lock_timeout"] == "1s"
    assert shown["idle_in_transaction_session_timeout"] == "10s"
    assert shown["default_transaction_read_only"] == "on"
    assert shown["search_path"] == "pg_catalog"
    assert shown["statement_timeout"] not in ("0", "")
    # So that the server, too, ends a session that a cut of the network has left behind, and not after two hours.
    assert [shown[f"tcp_keepalives_{name}"] for name in ("idle", "interval", "count")] == ["30", "10", "3"]

    connected = reader._connection._connection
    assert connected is not None
    with socket.socket(fileno=connected.fileno()) as wire:
        assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        wire.detach()

    connect(server, application_name="bystander")  # idle from later on: when it is ended for that, ours would have been
    bystander = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bystander'"
    wait_until(lambda: query(session, bystander) == [(0,)], what="idle_session_timeout")
    assert watching.read(reader).server
    assert query(session, "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgleak'") == [(pid,)]


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_attempts_to_connect_come_ever_later_and_at_least_every_ten_seconds() -> None:
    """In between, a read fails at once and with the same words, and the server is left alone."""
    clock = Clock()
    attempts, said = [], set()
    with hanging_up() as (port, logins):
        dsn = Dsn.parse(f"host=127.0.0.1 port={port} user=u dbname=d sslmode=disable gssencmode=disable")
        connection = HeldConnection(dsn, Timeouts(), clock)
        for clock.now in [half / 2 for half in range(80)]:
            before = len(logins)
            with pytest.raises(ReadError) as failure:
                connection.ensure(clock.now + 8)
            said.add((failure.value.reason, failure.value.detail))
            attempts += [clock.now] * (len(logins) - before)
    assert attempts == [0, 1, 3, 7, 15, 25, 35]
    assert len(said) == 1


def test_after_a_success_the_next_attempts_come_quickly_again(new_postgres: NewPostgres) -> None:
    clock = Clock()
    server = new_postgres(18)
    connection = HeldConnection(Dsn.parse(server.dsn()), Timeouts(), clock)

    def is_connected() -> bool:
        try:
            connection.ensure(clock.now + 8)
            connection.execute("SELECT 1", clock.now + 8)
        except ReadError:
            return False
        return True

    for first in (100.0, 200.0):
        clock.now = first
        assert is_connected()
        server.stop()
        assert not is_connected(), "the session is lost"
        assert not is_connected(), "the first attempt"
        server.start()
        clock.now = first + 0.9
        assert not is_connected(), "the server is back, but the pause is not over"
        clock.now = first + 1.0
        assert is_connected()
    connection.close()


@contextlib.contextmanager
def hanging_up() -> Iterator[tuple[int, list[object]]]:
    """A port where every login is noted and then cut off before an answer."""
    logins: list[object] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):  # the listener was closed
                while True:
                    client, address = listener.accept()
                    with client:
                        client.recv(65536)
                        logins.append(address)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], logins
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def test_a_lock_on_a_catalogue_ends_by_lock_timeout_and_the_connection_survives(
    new_postgres: NewPostgres, connect: Connect, readers: list[Reader]
) -> None:
    """A lock on a catalogue makes the read wait without freezing anything."""
    server = new_postgres(16)
    reader = watching.reader(server, timeouts=Timeouts(lock=0.3))
    readers.append(reader)
    assert watching.read(reader).server
    blocker = connect(server)
    session = watching.own_pid(connect(server))
    query(blocker, "BEGIN")
    query(blocker, "LOCK TABLE pg_catalog.pg_database IN ACCESS EXCLUSIVE MODE")

    assert watching.read(reader).reason == "lock_timeout"

    query(blocker, "ROLLBACK")
    assert watching.read(reader).server
    assert watching.own_pid(connect(server)) == session, "the same session as before"


def test_the_server_gives_up_before_the_scraper_does(
    new_postgres: NewPostgres, connect: Connect, readers: list[Reader]
) -> None:
    """A statement that takes too long ends by statement_timeout, within the budget, and costs no reconnect."""
    server = new_postgres(18)
    reader = watching.reader(server, timeouts=Timeouts(scrape=2.0, lock=60.0))
    readers.append(reader)
    assert watching.read(reader).server
    session = watching.own_pid(connect(server))
    blocker = connect(server)
    query(blocker, "BEGIN")
    query(blocker, "LOCK TABLE pg_catalog.pg_database IN ACCESS EXCLUSIVE MODE")

    started = time.monotonic()
    assert watching.read(reader).reason == "statement_timeout"
    assert time.monotonic() - started < 1.9

    query(blocker, "ROLLBACK")
    assert watching.read(reader).server
    assert watching.own_pid(connect(server)) == session


def test_an_unanswered_statement_is_waited_for_and_the_slot_is_kept(
    new_postgres: NewPostgres, connect: Connect, readers: list[Reader]
) -> None:
    server = new_postgres(16)
    reader = watching.reader(server, timeouts=Timeouts(scrape=0.5, scrape_offset=0.1, connect=0.5))
    readers.append(reader)
    assert watching.read(reader).server
    session = connect(server)
    pid = watching.own_pid(session)
    server.freeze()
    assert [watching.read(reader).reason for _ in range(3)] == ["timeout"] * 3
    server.thaw()
    wait_until(lambda: watching.read(reader).server, what="the answer after all")
    assert watching.own_pid(session) == pid


def test_settings_of_the_role_do_not_change_what_is_read(new_postgres: NewPostgres, readers: list[Reader]) -> None:
    server = new_postgres(16)
    odd = {"bytea_output": "escape", "extra_float_digits": "-15", "timezone": "Asia/Tokyo", "datestyle": "SQL, DMY"}
    run_sql(
        server,
        "CREATE ROLE odd LOGIN IN ROLE pg_read_all_stats",
        *(f"ALTER ROLE odd SET {name} = '{value}'" for name, value in odd.items()),
    )
    reader = watching.reader(server, user="odd")
    readers.append(reader)
    reading = watching.read(reader)
    assert reading.server
    assert 0 <= time.time() - reading.server.postmaster_start < 60
    (own,) = [application for (_, role, *_), application in reading.applications.items() if role == "odd"]
    assert 0 <= own.session.oldest < 60


def test_an_application_name_in_the_dsn_wins(postgres16: EmbeddedPostgres, readers: list[Reader]) -> None:
    given = Dsn.parse(postgres16.dsn()).parameters()
    one = Target("db", Dsn({**given, "application_name": "watchdog"}))
    reader = Reader(one, watching.settings(one))
    readers.append(reader)
    assert "watchdog" in watching.connections(watching.read(reader))


def test_a_pooler_that_swallows_the_session_s_options_is_refused(postgres16: EmbeddedPostgres) -> None:
    """As PgBouncer does with ignore_startup_parameters; our SETs would end up in applications' sessions."""
    with swallowing(postgres16.port) as port:
        one = Target(
            "db",
            Dsn.parse(f"host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable gssencmode=disable"),
        )
        reading = watching.once(one)
    assert reading.reason == "configuration"
    assert "pooler" in reading.detail


@contextlib.contextmanager
def swallowing(port: int) -> Iterator[int]:
    """A proxy for one connection that takes the options out of its startup packet."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)

        def serve() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection(("127.0.0.1", port)) as server:
                packet = client.recv(65536)
                fields = packet[8:-1].split(b"\0")
                pairs = [fields[at : at + 2] for at in range(0, len(fields) - 1, 2)]
                kept = b"".join(key + b"\0" + value + b"\0" for key, value in pairs if key != b"options") + b"\0"
                server.sendall(struct.pack("!ii", len(kept) + 8, 196608) + kept)
                back = threading.Thread(target=pump, args=(server, client))
                back.start()
                pump(client, server)
                back.join(10)

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join(10)


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
