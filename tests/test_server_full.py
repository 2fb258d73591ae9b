"""A full server, against real ones: who is connected goes on reporting, who comes too late says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg2
import pytest

import servers
import watching
from pgleak.dsn import Dsn
from pgleak.settings import Target
from servers import run_sql, wait_until

if TYPE_CHECKING:
    from conftest import NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.postgres.reader import Reader


def fill(server: EmbeddedPostgres, user: str = "postgres") -> list[psycopg2.extensions.connection]:
    """Open connections until the server refuses this role; returns them."""
    opened = []
    while True:
        try:
            opened.append(servers.open_connection(server, user=user, application_name="filler"))
        except psycopg2.OperationalError:
            return opened
        assert len(opened) < 1_000


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
    # the login that was refused is a backend for as long as it takes to say so
    reading = wait_until(lambda: (now := watching.read(reader)).used == 9 and now, what="the refused login's end")

    assert reading.server
    assert reading.server.usable == 9
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
    try:
        run_sql(postgres16, "CREATE ROLE watcher LOGIN", "CREATE DATABASE limited TEMPLATE template0", limit)
        one = Target("db", Dsn.parse(postgres16.dsn("watcher", "limited")))
        assert watching.once(one).reason == reason
    finally:
        run_sql(postgres16, "DROP DATABASE IF EXISTS limited", "DROP ROLE IF EXISTS watcher")
