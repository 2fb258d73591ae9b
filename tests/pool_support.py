"""Pools under test, and the server's own word on what is connected."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import URL

import servers
from pgleak.demo.embedded import SUPERUSER
from pgleak.pool import api

if TYPE_CHECKING:
    from psycopg2.extensions import connection
    from sqlalchemy.engine import Connection, Engine

    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.pool.snapshot import PoolSnapshot

EVENTS = (
    "first_connect", "connect", "checkout", "reset", "checkin", "invalidate", "soft_invalidate", "close", "detach",
    "close_detached",
)  # fmt: skip
SYNC_DRIVERS = ("psycopg2", "psycopg", "pg8000")
ASYNC_DRIVERS = ("asyncpg", "psycopg_async")

_PATIENCE = 30.0  # seconds
_names = itertools.count(1)


def new_name() -> str:
    """An application_name and pool label that no other test has."""
    return f"pool-test-{next(_names)}"


def url(server: EmbeddedPostgres, driver: str = "psycopg2", **query: str) -> URL:
    return URL.create(
        f"postgresql+{driver}", SUPERUSER, host="127.0.0.1", port=server.port, database="postgres", query=query
    )


@dataclass(frozen=True)
class Counts:
    idle: int = 0
    used: int = 0
    detached: int = 0
    orphaned: int = 0
    inherited: int = 0

    @property
    def connections(self) -> int:
        """What the server must show: what another process has opened is not counted here."""
        return self.idle + self.used + self.detached + self.orphaned


def connect_for_others(engine: Engine) -> Connection:
    """What a repository of an application does."""
    return engine.connect()


def pool_of(name: str) -> PoolSnapshot:
    return next(pool for pool in api.snapshot().pools if pool.name == name)


def counts(name: str) -> Counts:
    """What the ledger says."""
    for pool in api.snapshot().pools:
        if pool.name == name:
            places = [checkout.place for checkout in pool.checkouts]
            return Counts(
                len(pool.idle),
                places.count("pool"),
                places.count("detached"),
                places.count("orphaned") + len(pool.orphans),
                places.count("inherited"),
            )
    return Counts()


def ledger_pids(name: str) -> set[int | None]:
    """The backends that the ledger knows."""
    return {
        backend.pid
        for pool in api.snapshot().pools
        if pool.name == name
        for backend in (*pool.idle, *pool.orphans, *(checkout.backend for checkout in pool.checkouts))
    }


class Truth:
    """What the server says."""

    def __init__(self, session: connection) -> None:
        self._session = session

    def pids(self, name: str) -> set[int | None]:
        rows = servers.query(self._session, "select pid from pg_stat_activity where application_name = %s", name)
        return {row[0] for row in rows}

    def state(self, pid: int) -> str:
        rows = servers.query(self._session, "select state from pg_stat_activity where pid = %s", pid)
        return str(rows[0][0]) if rows else "gone"

    def agrees(self, name: str) -> None:
        """Wait until the ledger knows the very backends that the server has: a close takes a moment to arrive."""
        deadline = time.monotonic() + _PATIENCE
        while difference := self._difference(name):
            assert time.monotonic() < deadline, difference
            time.sleep(0.01)

    async def agrees_in_a_loop(self, name: str) -> None:
        """The same while the event loop turns and the collector runs.

        A driver whose connect was cancelled lets go of its end in turns of the loop, or leaves it to the collector.
        """
        deadline = time.monotonic() + _PATIENCE
        while difference := self._difference(name):
            assert time.monotonic() < deadline, difference
            gc.collect()
            await asyncio.sleep(0.01)

    def _difference(self, name: str) -> str:
        known, pids = ledger_pids(name), self.pids(name)
        if known == pids and counts(name).connections == len(pids):
            return ""
        return f"the ledger has {counts(name)} {known}, the server {pids}"


class Recorder:
    """SQLAlchemy's events, in the order in which they come."""

    def __init__(self, engine: Engine) -> None:
        self.seen: list[str] = []
        for name in EVENTS:
            event.listen(engine, name, self._listener(name))

    def _listener(self, name: str) -> Any:
        def listener(*arguments: Any) -> None:
            no_connection = name == "checkin" and arguments[0] is None
            self.seen.append(f"{name} without connection" if no_connection else name)

        return listener

    def taken(self) -> list[str]:
        """The events since the last time."""
        seen, self.seen = self.seen, []
        return seen
