"""Why a read failed is told from what servers and libpq say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg2
import pytest

import watching
from pgleak.dsn import Dsn
from pgleak.postgres.reader import Reader
from pgleak.postgres.reasons import classify, first_line
from pgleak.settings import Target
from servers import run_sql

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres


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


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ('definition of service "postgresql://u:M4RK@h/d" not found', 'definition of service "(not shown)" not found'),
        ('definition of service "u:M4RK@h" not found', 'definition of service "(not shown)" not found'),
        ('definition of service "u:M4 RK@h" not found', 'definition of service "(not shown)" not found'),
        ('definition of service "u:M4"RK@h" not found', 'definition of service "(not shown)" not found'),
        ('FATAL:  role "postgresql://u:M4RK@h" does not exist', 'FATAL: role "(not shown)" does not exist'),
        ('FATAL:  database "host=h password=M4RK" does not exist', 'FATAL: database "(not shown)" does not exist'),
        ("could not translate host name u:M4RK@h to address", "could not translate host name (not shown)"),
        # What is no secret stays.
        (
            'FATAL:  no pg_hba.conf entry for host "::1", user "a@b"',
            'FATAL: no pg_hba.conf entry for host "::1", user "a@b"',
        ),
        (
            'FATAL:  no such endpoint "x": see https://example.org/sni',
            'FATAL: no such endpoint "x": see https://example.org/sni',
        ),
        (
            'FATAL:  password authentication failed for user "a@b"',
            'FATAL: password authentication failed for user "a@b"',
        ),
    ],
)
def test_a_connection_string_in_the_place_of_a_name_is_not_repeated(said: str, shown: str) -> None:
    assert first_line(psycopg2.OperationalError(said)) == shown


@pytest.mark.parametrize("host", ["postgresql://u:M4RK@h/d", "u:M4RK@h", "u:M4/RK@h"])
def test_a_connection_string_as_the_host_of_a_service_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    services = tmp_path / "services"
    services.write_text(f"[orders]\nhost={host}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    reading = watching.once(Target("db", Dsn.from_service("orders")))
    assert reading.reason == "configuration"
    assert "in the host" in reading.detail
    assert "M4RK" not in repr(reading)


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
        assert watching.once(one).reason == reason


def test_a_broken_password_file_is_a_reason_and_names_the_file(postgres16: EmbeddedPostgres, tmp_path: Path) -> None:
    missing = tmp_path / "password"
    one = Target("db", Dsn.parse(postgres16.dsn(), password_file=missing))
    reading = watching.once(one)
    assert reading.reason == "configuration"
    assert str(missing) in reading.detail


def test_what_was_said_comes_without_what_every_message_repeats_but_with_the_socket_that_libpq_chose() -> None:
    refused = 'connection to server at "db1" (10.0.0.1), port 5432 failed: Connection refused\n\tIs the server running?'
    assert first_line(psycopg2.OperationalError(refused)) == "Connection refused"
    missing = 'connection to server on socket "/tmp/.s.PGSQL.5432" failed: No such file or directory\n'
    assert first_line(psycopg2.OperationalError(missing)) == 'socket "/tmp/.s.PGSQL.5432": No such file or directory'
