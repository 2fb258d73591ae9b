"""A server that is stopped, killed, frozen or out of reach costs its deadline and no more, against real ones."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

import servers
import watching
from pgleak.dsn import Dsn
from pgleak.exporter import Exporter
from pgleak.postgres.reader import Reader
from pgleak.settings import Target, Timeouts
from servers import run_sql, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres


IMPATIENT = Timeouts(scrape=2.0, connect=1.0)


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


def test_a_refused_port_is_unreachable_at_once() -> None:
    one = Target("db", Dsn.parse(f"host=127.0.0.1 port={unused_port()} user=postgres"))
    started = time.monotonic()
    assert watching.once(one).reason == "unreachable"
    assert time.monotonic() - started < 2


def test_a_black_hole_costs_the_deadline_and_no_more(black_hole: int) -> None:
    one = Target("db", Dsn.parse(f"host=127.0.0.1 port={black_hole} user=postgres"))
    started = time.monotonic()
    reading = watching.once(one, 1.0, timeouts=IMPATIENT)
    assert reading.reason == "timeout"
    assert time.monotonic() - started < 2.5


def test_libpq_moves_on_from_a_black_hole_to_the_next_host(
    black_hole: int, postgres16: EmbeddedPostgres, readers: list[Reader]
) -> None:
    there = Dsn.parse(postgres16.dsn()).parameters()
    dsn = f"host=127.0.0.1,{there['host']} port={black_hole},{there['port']} user=postgres dbname=postgres"
    one = Target("db", Dsn.parse(dsn))
    reader = Reader(one, watching.settings(one, timeouts=Timeouts(scrape=20.0, connect=5.0)))
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
    reading = watching.once(one)
    opened.close()
    stopper.join(20)
    assert reading.reason == "starting_or_stopping"


def refusal(server: EmbeddedPostgres) -> bool:
    try:
        servers.open_connection(server).close()
    except psycopg2.OperationalError:
        return True
    return False


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
    assert watching.once(unknown).reason == "unreachable"
