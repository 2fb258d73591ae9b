"""PostgreSQL for the tests: which versions, how to start them, and small helpers to talk to them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from pgleak.demo.binaries import PostgresNotFoundError, find_binaries, system_versions
from pgleak.demo.embedded import SUPERUSER, EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg2.extensions import connection

# 16 and 18 come with the wheel. 15 is the last without reserved_connections, and Debian 12's own.
OLDEST = 15
EMBEDDED = (16, 18)


def system_version() -> int:
    """Return POSTGRES from the environment, else 15 where it is installed, else the oldest of the system's packages."""
    if chosen := os.environ.get("POSTGRES"):
        return int(chosen)
    found = system_versions()
    return OLDEST if OLDEST in found or not found else found[0]


def make_server(version: int, **options: Any) -> EmbeddedPostgres:
    """Make a server, not yet started; fail the test with the install line where the version is missing."""
    try:
        bin_dir = find_binaries(version)
    except PostgresNotFoundError as error:
        pytest.fail(str(error), pytrace=False)
    return EmbeddedPostgres(bin_dir=bin_dir, **options)


def open_connection(
    server: EmbeddedPostgres,
    user: str = SUPERUSER,
    dbname: str = "postgres",
    *,
    application_name: str | None = None,
    **parameters: Any,
) -> connection:
    """Open a connection in autocommit, over TCP unless ``host`` says otherwise."""
    session: connection = psycopg2.connect(
        server.dsn(user, dbname), connect_timeout=10, application_name=application_name, **parameters
    )
    session.autocommit = True
    return session


def query(session: connection, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Run one statement; its rows, or none."""
    with session.cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return list(cursor.fetchall()) if cursor.description else []


def run_sql(server: EmbeddedPostgres, *statements: str, dbname: str = "postgres") -> None:
    """Run statements as the superuser on a connection of their own."""
    session = open_connection(server, dbname=dbname)
    try:
        for statement in statements:
            query(session, statement)
    finally:
        session.close()


def wait_until(condition: Callable[[], Any], timeout: float = 10, what: str = "") -> Any:
    """Wait for a condition to hold and return its value; fail the test when it does not in time.

    The time is meant for a machine that has nothing else to do. A busy one gets three times as long: nothing is proven
    about speed here.
    """
    timeout = min(3 * timeout, 100)
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout} s in vain for {what or condition}")
        time.sleep(0.02)
    return value
