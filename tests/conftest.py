"""Servers for the tests: three shared ones, and a factory for tests that stop, freeze or fill theirs."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, Protocol

import pytest

import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection

    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.postgres.reader import Reader


class Connect(Protocol):
    def __call__(
        self,
        server: EmbeddedPostgres,
        user: str = ...,
        dbname: str = ...,
        *,
        application_name: str | None = ...,
        **parameters: Any,
    ) -> connection: ...


class NewPostgres(Protocol):
    def __call__(
        self, version: int = ..., *, password_users: tuple[str, ...] = ..., **settings: str | float
    ) -> EmbeddedPostgres: ...


@functools.cache
def _shared(version: int) -> EmbeddedPostgres:
    server = servers.make_server(version, settings={"max_prepared_transactions": 10})
    _running.callback(server.close)
    server.start()
    return server


_running = contextlib.ExitStack()


def pytest_unconfigure() -> None:
    _running.close()


@pytest.fixture(scope="session")
def system_postgres() -> EmbeddedPostgres:
    """The server of the system's packages: on Debian 12 that is 15, without reserved_connections. Shared: leave it as it was."""
    return _shared(servers.system_version())


@pytest.fixture(scope="session")
def postgres16() -> EmbeddedPostgres:
    """The first version with reserved_connections. Shared: leave it as it was."""
    return _shared(16)


@pytest.fixture(scope="session")
def postgres18() -> EmbeddedPostgres:
    """The newest version. Shared: leave it as it was."""
    return _shared(18)


@pytest.fixture(
    scope="session",
    params=[servers.system_version(), *servers.EMBEDDED],
    ids=lambda major: f"postgres{major}",
)
def postgres(request: pytest.FixtureRequest) -> EmbeddedPostgres:
    """The test runs once on each version: the system's, 16 and 18. Shared: leave it as it was."""
    version: int = request.param
    return _shared(version)


@pytest.fixture
def new_postgres() -> Iterator[NewPostgres]:
    """Start a server of the test's own, with settings as keywords, which it may stop, freeze or fill."""
    with contextlib.ExitStack() as started:

        def start(
            version: int = 18, *, password_users: tuple[str, ...] = (), **settings: str | float
        ) -> EmbeddedPostgres:
            server = servers.make_server(version, settings=settings, password_users=password_users)
            started.callback(server.close)
            server.start()
            return server

        yield start


@pytest.fixture
def readers() -> Iterator[list[Reader]]:
    """Readers appended here give their slot back when the test ends."""
    opened: list[Reader] = []
    yield opened
    for reader in opened:
        reader.close()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open connections that are closed when the test ends, whatever became of their server."""
    with contextlib.ExitStack() as opened:

        def open_one(*arguments: Any, **parameters: Any) -> connection:
            session = servers.open_connection(*arguments, **parameters)
            opened.callback(session.close)
            return session

        yield open_one
