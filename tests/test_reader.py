"""What pgleak promises when a server misbehaves, each against a real one."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

import servers
import watching
from pgleak.dsn import Dsn
from pgleak.exporter import Exporter
from pgleak.postgres.reader import Reader
from pgleak.postgres.reasons import classify, first_line
from pgleak.settings import Target, Timeouts
from servers import query, run_sql, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Connect, NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres

IMPATIENT = Timeouts(scrape=2.0, connect=1.0)


@pytest.fixture
def readers() -> Iterator[list[Reader]]:
    """Readers appended here give their slot back when the test ends."""
    opened: list[Reader] = []
    yield opened
    for reader in opened:
        reader.close()


def fill(server: EmbeddedPostgres, user: str = "postgres") -> list[psycopg2.extensions.connection]:
    """Open connections until the server refuses this role; returns them."""
    opened = []
    while True:
        try:
            opened.append(servers.open_connection(server, user=user, application_name="filler"))
        except psycopg2.OperationalError:
            return opened
        assert len(opened) < 1_000


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A loopback port on which connecting neither succeeds nor fails: its queue of connections is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(address)
        yield address[1]
        for one in crowd:
            one.close()


# Server full


@pytest.mark.parametrize("version", [servers.system_version(), 18])
def test_counts_go_on_over_the_held_connection_when_the_server_is_full(
    new_postgres: NewPostgres, readers: list[Reader], version: int
) -> None:
    server = new_postgres(version, max_connections=12)
    run_sql(server, "CREATE ROLE watcher LOGIN IN ROLE pg_read_all_stats", "CREATE ROLE ordinary LOGIN")
    reader = watching.reader(server, user="watcher")
    readers.append(reader)
    assert watching.read(reader).reason == ""

    opened = fill(server, "ordinary")
    reading = watching.read(reader)

    assert reading.server
    assert reading.used == reading.server.usable == 9
    assert watching.connections(reading)["filler"]["idle"] == len(opened) == 8
    for one in opened:
        one.close()


def test_a_fresh_start_while_the_server_is_full_says_why_and_recovers(
    new_postgres: NewPostgres, readers: list[Reader]
) -> None:
    server = new_postgres(16, max_connections=12, reserved_connections=2)
    run_sql(server, "CREATE ROLE watcher LOGIN IN ROLE pg_read_all_stats", "CREATE ROLE ordinary LOGIN")
    opened = fill(server, "ordinary")
    reader = watching.reader(server, user="watcher")
    readers.append(reader)

    reading = watching.read(reader)
    assert (reading.reason, reading.errors["slots_exhausted"]) == ("slots_exhausted", 1)
    assert "reserved" in reading.detail

    opened.pop().close()
    wait_until(lambda: watching.read(reader).server, what="recovery after a slot became free")
    for one in opened:
        one.close()


def test_a_fresh_start_while_the_server_is_full_works_with_the_reserved_role(
    new_postgres: NewPostgres, readers: list[Reader]
) -> None:
    server = new_postgres(16, max_connections=12, reserved_connections=2)
    run_sql(
        server,
        "CREATE ROLE watcher LOGIN IN ROLE pg_read_all_stats, pg_use_reserved_connections",
        "CREATE ROLE ordinary LOGIN",
    )
    opened = fill(server, "ordinary")
    reader = watching.reader(server, user="watcher")
    readers.append(reader)

    reading = watching.read(reader)

    assert reading.server
    assert reading.server.usable == len(opened) == 7
    assert reading.used == 8
    for one in opened:
        one.close()


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("ALTER ROLE watcher CONNECTION LIMIT 0", "role_limit"),
        ("ALTER DATABASE limited CONNECTION LIMIT 0", "database_limit"),
    ],
)
def test_a_limit_of_the_role_or_database_is_told_apart_from_a_full_server(
    postgres16: EmbeddedPostgres, limit: str, reason: str
) -> None:
    run_sql(postgres16, "CREATE ROLE watcher LOGIN", "CREATE DATABASE limited", limit)
    try:
        one = Target("db", Dsn.parse(postgres16.dsn("watcher", "limited")))
        assert watching.read(Reader(one, watching.settings(one))).reason == reason
    finally:
        run_sql(postgres16, "DROP DATABASE limited", "DROP ROLE watcher")


# Server gone


def test_a_stopped_server_is_reported_and_recovery_needs_no_restart(
    new_postgres: NewPostgres, readers: list[Reader]
) -> None:
    server = new_postgres(18)
    reader = watching.reader(server)
    readers.append(reader)
    assert watching.read(reader).server

    server.stop()
    assert watching.read(reader).reason == "connection_lost"
    assert watching.read(reader).reason == "unreachable"

    server.start()
    wait_until(lambda: watching.read(reader).server, what="recovery")
    assert watching.read(reader).last_success is not None


def test_a_killed_server_is_reported_and_recovers(new_postgres: NewPostgres, readers: list[Reader]) -> None:
    server = new_postgres(16)
    reader = watching.reader(server)
    readers.append(reader)
    assert watching.read(reader).server

    server.kill()
    assert watching.read(reader).reason == "connection_lost"

    server.start()
    wait_until(lambda: watching.read(reader).server, what="recovery")


def test_a_restart_between_two_reads_costs_one_failed_read(new_postgres: NewPostgres, readers: list[Reader]) -> None:
    server = new_postgres(18)
    reader = watching.reader(server)
    readers.append(reader)
    before = watching.read(reader).server
    server.restart()

    reading = watching.read(reader)
    assert reading.reason == "connection_lost"
    assert "terminating connection" in reading.detail

    after = watching.read(reader).server
    assert before
    assert after
    assert after.postmaster_start > before.postmaster_start


def test_a_frozen_server_costs_the_deadline_and_leaves_other_targets_alone(
    new_postgres: NewPostgres, postgres16: EmbeddedPostgres
) -> None:
    server = new_postgres(18)
    healthy, frozen = watching.target(postgres16, "healthy"), watching.target(server, "frozen")
    exporter = Exporter(watching.settings(healthy, frozen))
    watching.scrape(exporter)

    server.freeze()
    started = time.monotonic()
    found = watching.scrape(exporter, seconds=1.5)
    took = time.monotonic() - started
    server.thaw()

    assert took < 3, f"{took:.1f} s for a deadline of 1.5 s"
    assert watching.value(found, "pgleak_up", server="frozen") == 0
    assert watching.value(found, "pgleak_scrape_errors_total", server="frozen", reason="timeout") == 1
    assert watching.value(found, "pgleak_up", server="healthy") == 1
    assert watching.value(found, "pgleak_used_connections", server="healthy") >= 1
    wait_until(
        lambda: watching.value(watching.scrape(exporter), "pgleak_up", server="frozen") == 1, what="recovery after thaw"
    )
    exporter.close()


def test_after_a_freeze_the_exporter_is_back_to_one_slot(new_postgres: NewPostgres, readers: list[Reader]) -> None:
    server = new_postgres(16)
    reader = watching.reader(server, timeouts=IMPATIENT)
    readers.append(reader)
    assert watching.read(reader).server
    server.freeze()
    for _ in range(3):
        assert watching.read(reader, 0.5).reason == "timeout"
    server.thaw()

    def one_slot() -> bool:
        reading = watching.read(reader)
        return bool(reading.server) and sum(watching.connections(reading)["pgleak"].values()) == 1

    wait_until(one_slot, what="exactly one session of the exporter")


def test_a_server_that_is_frozen_during_the_login_costs_the_deadline(
    new_postgres: NewPostgres, readers: list[Reader]
) -> None:
    server = new_postgres(18)
    reader = watching.reader(server)
    readers.append(reader)
    server.freeze()
    started = time.monotonic()
    reading = watching.read(reader, 1.0)
    took = time.monotonic() - started
    server.thaw()
    assert reading.reason == "timeout"
    assert took < 2.5


def test_a_lock_on_a_catalogue_ends_by_lock_timeout_and_the_connection_survives(
    new_postgres: NewPostgres, connect: Connect, readers: list[Reader]
) -> None:
    """A lock on a catalogue makes the read wait without freezing anything."""
    server = new_postgres(16)
    reader = watching.reader(server, timeouts=Timeouts(lock=0.3))
    readers.append(reader)
    assert watching.read(reader).server
    blocker = connect(server)
    session = own_pid(connect(server))
    query(blocker, "BEGIN")
    query(blocker, "LOCK TABLE pg_catalog.pg_database IN ACCESS EXCLUSIVE MODE")

    assert watching.read(reader).reason == "lock_timeout"

    query(blocker, "ROLLBACK")
    assert watching.read(reader).server
    assert own_pid(connect(server)) == session, "the same session as before"


def own_pid(session: psycopg2.extensions.connection) -> int:
    """The process id of the exporter's session, as the server sees it."""
    ((pid,),) = query(session, "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgleak'")
    return int(pid)


def test_the_server_gives_up_before_the_scraper_does(
    new_postgres: NewPostgres, connect: Connect, readers: list[Reader]
) -> None:
    """A statement that takes too long ends by statement_timeout, within the budget, and costs no reconnect."""
    server = new_postgres(18)
    reader = watching.reader(server, timeouts=Timeouts(scrape=2.0, lock=60.0))
    readers.append(reader)
    assert watching.read(reader).server
    session = own_pid(connect(server))
    blocker = connect(server)
    query(blocker, "BEGIN")
    query(blocker, "LOCK TABLE pg_catalog.pg_database IN ACCESS EXCLUSIVE MODE")

    started = time.monotonic()
    assert watching.read(reader).reason == "statement_timeout"
    assert time.monotonic() - started < 1.9

    query(blocker, "ROLLBACK")
    assert watching.read(reader).server
    assert own_pid(connect(server)) == session


def test_a_refused_password_is_told(new_postgres: NewPostgres, readers: list[Reader]) -> None:
    server = new_postgres(18, password_users=("guarded",))
    run_sql(server, "CREATE ROLE guarded LOGIN PASSWORD 'right'")
    one = Target("db", Dsn.parse(server.dsn("guarded", password="wrong-hXq7")))
    reader = Reader(one, watching.settings(one))
    readers.append(reader)
    reading = watching.read(reader)
    assert reading.reason == "authentication"
    assert "wrong-hXq7" not in repr(reading)


def test_a_missing_role_and_a_missing_database_are_told(postgres: EmbeddedPostgres) -> None:
    for user, database, reason in (
        ("nobody_here", "postgres", "authentication"),
        ("postgres", "gone", "database_missing"),
    ):
        one = Target("db", Dsn.parse(postgres.dsn(user, database)))
        assert watching.read(Reader(one, watching.settings(one))).reason == reason


def test_a_refused_port_is_unreachable_at_once() -> None:
    one = Target("db", Dsn.parse(f"host=127.0.0.1 port={unused_port()} user=postgres"))
    started = time.monotonic()
    assert watching.read(Reader(one, watching.settings(one))).reason == "unreachable"
    assert time.monotonic() - started < 2


def test_a_black_hole_costs_the_deadline_and_no_more(black_hole: int) -> None:
    one = Target("db", Dsn.parse(f"host=127.0.0.1 port={black_hole} user=postgres"))
    started = time.monotonic()
    reading = watching.read(Reader(one, watching.settings(one, timeouts=IMPATIENT)), 1.0)
    assert reading.reason == "timeout"
    assert time.monotonic() - started < 2.5


def test_libpq_moves_on_from_a_black_hole_to_the_next_host(
    black_hole: int, postgres16: EmbeddedPostgres, readers: list[Reader]
) -> None:
    there = Dsn.parse(postgres16.dsn()).parameters()
    dsn = f"host=127.0.0.1,{there['host']} port={black_hole},{there['port']} user=postgres dbname=postgres"
    one = Target("db", Dsn.parse(dsn))
    reader = Reader(one, watching.settings(one, timeouts=Timeouts(scrape=20.0, connect=10.0)))
    readers.append(reader)
    assert watching.read(reader, 20).server


def test_a_server_that_starts_up_is_told(new_postgres: NewPostgres) -> None:
    server = new_postgres(18)
    run_sql(server, "CREATE TABLE filler AS SELECT generate_series(1, 10)")
    one = watching.target(server)
    opened = servers.open_connection(server)
    stopper = threading.Thread(target=server.stop, args=("smart",))
    stopper.start()  # a smart shutdown waits for the open session and refuses new ones meanwhile
    wait_until(lambda: refusal(server), what="a refusal")
    reading = watching.read(Reader(one, watching.settings(one)))
    opened.close()
    stopper.join(20)
    assert reading.reason == "starting_or_stopping"


def refusal(server: EmbeddedPostgres) -> bool:
    try:
        servers.open_connection(server).close()
    except psycopg2.OperationalError:
        return True
    return False


def test_a_broken_password_file_is_a_reason_and_names_the_file(postgres16: EmbeddedPostgres, tmp_path: Path) -> None:
    missing = tmp_path / "password"
    one = Target("db", Dsn.parse(postgres16.dsn(), password_file=missing))
    reading = watching.read(Reader(one, watching.settings(one)))
    assert reading.reason == "configuration"
    assert str(missing) in reading.detail


# Noise


def test_a_server_that_stays_down_is_one_line_and_its_return_another(
    new_postgres: NewPostgres, readers: list[Reader], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pgleak")
    server = new_postgres(18)
    run_sql(server, "CREATE ROLE watcher LOGIN IN ROLE pg_read_all_stats")
    reader = watching.reader(server, user="watcher")
    readers.append(reader)
    watching.read(reader)
    server.stop()
    watching.read(reader)
    caplog.clear()
    for _ in range(50):
        assert watching.read(reader).reason == "unreachable"
    assert len(caplog.records) == 1
    assert "unreachable" in caplog.text
    server.start()
    wait_until(lambda: watching.read(reader).server)
    assert len(caplog.records) == 2
    assert "read again" in caplog.text


# The held connection


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
    for name in ("statement_timeout", "lock_timeout", "default_transaction_read_only", "search_path"):
        ((shown[name],),) = reader._connection.execute(f"SHOW {name}", deadline)
    assert shown["lock_timeout"] == "1s"
    assert shown["default_transaction_read_only"] == "on"
    assert shown["search_path"] == "pg_catalog"
    assert shown["statement_timeout"] not in ("0", "")

    connected = reader._connection._connection
    assert connected is not None
    with socket.socket(fileno=connected.fileno()) as wire:
        assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        wire.detach()
    time.sleep(0.5)  # longer than idle_session_timeout: what is tested is that nothing happens
    assert watching.read(reader).server
    assert query(session, "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgleak'") == [(pid,)]


def test_counts_are_never_stale(postgres: EmbeddedPostgres, connect: Connect, readers: list[Reader]) -> None:
    """Inside a transaction pg_stat_activity would be frozen; each read sees what has changed since."""
    reader = watching.reader(postgres)
    readers.append(reader)
    for number in range(1, 4):
        connect(postgres, application_name="newcomer")
        wait_until(lambda: watching.connections(watching.read(reader))["newcomer"]["idle"] == number)  # noqa: B023  at once


def test_an_application_name_in_the_dsn_wins(postgres16: EmbeddedPostgres, readers: list[Reader]) -> None:
    given = Dsn.parse(postgres16.dsn()).parameters()
    one = Target("db", Dsn({**given, "application_name": "watchdog"}))
    reader = Reader(one, watching.settings(one))
    readers.append(reader)
    assert "watchdog" in watching.connections(watching.read(reader))


def test_an_impatient_asker_costs_nobody_anything(
    new_postgres: NewPostgres, connect: Connect, readers: list[Reader]
) -> None:
    """It gets no answer; the others get theirs from the same read, and the exporter keeps its session."""
    server = new_postgres(18)
    reader = watching.reader(server, timeouts=Timeouts(lock=30.0))
    readers.append(reader)
    assert watching.read(reader).server
    session, blocker = connect(server), connect(server)
    pid = own_pid(session)
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
    assert own_pid(session) == pid


def test_an_unanswered_statement_is_waited_for_and_the_slot_is_kept(
    new_postgres: NewPostgres, connect: Connect, readers: list[Reader]
) -> None:
    server = new_postgres(16)
    reader = watching.reader(server, timeouts=Timeouts(scrape=0.5, scrape_offset=0.1, connect=0.5))
    readers.append(reader)
    assert watching.read(reader).server
    session = connect(server)
    pid = own_pid(session)
    server.freeze()
    assert [watching.read(reader).reason for _ in range(3)] == ["timeout"] * 3
    server.thaw()
    wait_until(lambda: watching.read(reader).server, what="the answer after all")
    assert own_pid(session) == pid


def test_a_slow_name_service_holds_up_its_own_target_only(
    postgres16: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resolver is the one thing that is not real here: it stands still until it is let go."""
    released = threading.Event()
    real = socket.getaddrinfo

    def slow(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "slow.example":
            released.wait(30)
            raise socket.gaierror("no such name")
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    given = Dsn.parse(postgres16.dsn()).parameters()
    stuck = Target("stuck", Dsn({**given, "host": "slow.example"}))
    exporter = Exporter(watching.settings(stuck, watching.target(postgres16, "healthy")))
    try:
        started = time.monotonic()
        found = watching.scrape(exporter, seconds=1.0)
        assert time.monotonic() - started < 3
        assert watching.value(found, "pgleak_up", server="healthy") == 1
        assert watching.value(found, "pgleak_up", server="stuck") == 0
        assert watching.value(found, "pgleak_scrape_errors_total", server="stuck", reason="timeout") == 1
    finally:
        released.set()
        exporter.close()


def test_names_are_resolved_before_libpq_would(postgres16: EmbeddedPostgres, readers: list[Reader]) -> None:
    given = Dsn.parse(postgres16.dsn()).parameters()
    one = Target("db", Dsn({**given, "host": "localhost"}))
    reader = Reader(one, watching.settings(one))
    readers.append(reader)
    assert watching.read(reader).server
    unknown = Target("db", Dsn({**given, "host": "no-such-host.invalid"}))
    assert watching.read(Reader(unknown, watching.settings(unknown))).reason == "unreachable"


def test_a_pooler_that_swallows_the_session_s_options_is_refused(postgres16: EmbeddedPostgres) -> None:
    """As PgBouncer does with ignore_startup_parameters; our SETs would end up in applications' sessions."""
    with swallowing(postgres16.port) as port:
        one = Target(
            "db",
            Dsn.parse(f"host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable gssencmode=disable"),
        )
        reading = watching.read(Reader(one, watching.settings(one)))
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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('connection to server at "tls-db" (10.0.0.1), port 5432 failed: Connection refused', "unreachable"),
        ('could not translate host name "ssl.example" to address: Name or service not known', "unreachable"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "u", database "d", SSL off', "authentication"),
        ("SSL error: certificate verify failed", "tls"),
        ("FATAL:  unsupported startup parameter: options", "configuration"),
        ("local user with ID 65532 does not exist", "configuration"),
        ("FATAL:  la base de données « x » n'existe pas", "other"),
    ],
)
def test_what_servers_say_is_told_apart(text: str, reason: str) -> None:
    assert classify(psycopg2.OperationalError(text), connected=False) == reason


def test_a_message_in_another_encoding_is_still_told() -> None:
    error = UnicodeDecodeError("utf-8", "FATAL:  désolé, too many clients already".encode("latin-1"), 9, 10, "invalid")
    assert classify(error, connected=False) == "slots_exhausted"
    assert "too many clients" in first_line(error)


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


def reads(server: EmbeddedPostgres) -> int:
    """How often the server was asked for its sessions, by its own log of statements."""
    return server.log_file.read_text().count("EXECUTE pgleak_activity")
