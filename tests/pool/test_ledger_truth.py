"""Whatever an application does to its pool, in whatever order, the ledger says what the server says, after each step."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import warnings
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import (
    AssertionPool,
    AsyncAdaptedQueuePool,
    NullPool,
    QueuePool,
    SingletonThreadPool,
    StaticPool,
)

import servers
from pgleak.pool import api, checkouts
from pool_support import ASYNC_DRIVERS, SYNC_DRIVERS, Truth, counts, ledger_pids, new_name, pool_of, url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.demo.embedded import EmbeddedPostgres

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning"
)

STEPS = 25


class Application:
    """Does one thing after another to its engine."""

    ACTIONS = (
        "connect", "connect", "connect", "close", "close", "query", "invalidate", "soft_invalidate", "detach", "dispose",
        "dispose_without_closing", "drop", "drop_in_cycle", "collect", "new_engine", "timeout", "fork",
    )  # fmt: skip

    def __init__(self, server: EmbeddedPostgres, driver: str, choose: random.Random, poolclass: Any) -> None:
        self.server = server
        self.name = new_name()
        self.choose = choose
        self.held: list[Any] = []
        self.cycles = 0
        self.driver = driver
        self.poolclass = poolclass
        self.new_engine()

    def new_engine(self) -> None:
        options = {"pool_size": 2, "max_overflow": 2, "pool_timeout": 0.01} if self.poolclass is QueuePool else {}
        self.engine = create_engine(url(self.server, self.driver), poolclass=self.poolclass, **options)
        api.instrument(self.engine, name=self.name)

    def step(self) -> str:
        action = self.choose.choice(self.ACTIONS)
        getattr(self, action)()
        return action

    def _any(self, *, remove: bool = False) -> Any:
        if not self.held:
            return None
        index = self.choose.randrange(len(self.held))
        return self.held.pop(index) if remove else self.held[index]

    def connect(self) -> None:
        with contextlib.suppress(PoolTimeoutError, AssertionError):  # AssertionPool raises the second
            self.held.append(self.engine.raw_connection())

    def timeout(self) -> None:
        taken: list[Any] = []
        with contextlib.suppress(PoolTimeoutError, AssertionError):
            while len(taken) < 5:
                taken.append(self.engine.raw_connection())
        for connection in taken:
            connection.close()

    def close(self) -> None:
        connection = self._any(remove=True)
        if connection is not None:
            connection.close()

    def query(self) -> None:
        connection = self._any()
        if connection is not None and connection.is_valid:
            with contextlib.suppress(psycopg2.InterfaceError):  # closed by another holder, where a pool has but one
                connection.cursor().execute("select 1")

    def invalidate(self) -> None:
        connection = self._any(remove=True)
        if connection is not None and connection.is_valid and not connection.is_detached:
            connection.invalidate()
        elif connection is not None:
            connection.close()

    def soft_invalidate(self) -> None:
        connection = self._any()
        if connection is not None and connection.is_valid and not connection.is_detached:
            connection.invalidate(soft=True)

    def detach(self) -> None:
        connection = self._any()
        if connection is not None:
            connection.detach()

    def dispose(self) -> None:
        self.engine.dispose()

    def dispose_without_closing(self) -> None:
        self.engine.dispose(close=False)

    def drop(self) -> None:
        self._any(remove=True)

    def drop_in_cycle(self) -> None:
        """As a dropped Session is: out until the collector comes by."""
        connection = self._any(remove=True)
        if connection is not None:
            cycle = [connection]
            cycle.append(cycle)

    def collect(self) -> None:
        gc.collect()

    def fork(self) -> None:
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            assert status == 0, "the ledger and the server do not agree in the forked child"
            return
        status = 1
        try:
            assert ledger_pids(self.name) == set(), "what the parent opened is the parent's"
            assert counts(self.name).connections == 0
            self.engine.dispose(close=False)
            own = self.engine.raw_connection()
            session = servers.open_connection(self.server)
            ((backend,),) = _rows(own, "select pg_backend_pid()")
            assert counts(self.name).used == 1
            assert backend in ledger_pids(self.name)
            assert backend in Truth(session).pids(self.name)
            own.close()
            assert counts(self.name).idle == (0 if isinstance(self.engine.pool, NullPool) else 1)
            status = 0
        finally:
            os._exit(status)


def _rows(connection: Any, sql: str) -> list[Any]:
    cursor = connection.cursor()
    cursor.execute(sql)
    return list(cursor.fetchall())


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("poolclass", [QueuePool, NullPool])
@pytest.mark.parametrize("driver", SYNC_DRIVERS)
def test_the_ledger_agrees_with_the_server_after_every_step(
    postgres16: EmbeddedPostgres, truth: Truth, driver: str, poolclass: Any, seed: int
) -> None:
    run(Application(postgres16, driver, random.Random(seed), poolclass), truth)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("poolclass", [StaticPool, SingletonThreadPool, AssertionPool])
def test_the_ledger_agrees_with_the_server_in_pools_of_one_connection(
    postgres16: EmbeddedPostgres, truth: Truth, poolclass: Any, seed: int
) -> None:
    run(Application(postgres16, "psycopg2", random.Random(seed), poolclass), truth)


def test_the_checkin_event_tells_the_same_where_a_pool_cannot_be_seen_returning(
    postgres16: EmbeddedPostgres, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The method that is wrapped is not public: a SQLAlchemy to come may have another."""
    monkeypatch.setattr(checkouts, "_RETURN", "no_such_method")
    application = Application(postgres16, "psycopg2", random.Random(3), QueuePool)
    assert not checkouts.sees_returns(QueuePool)
    run(application, truth)
    assert pool_of(application.name).counters.use.count > 3


def run(application: Application, truth: Truth) -> None:
    done = []
    for _ in range(STEPS):
        done.append(application.step())
        try:
            truth.agrees(application.name)
        except BaseException:
            print("steps:", done)  # noqa: T201
            raise
    application.held.clear()
    application.engine.dispose()
    gc.collect()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("poolclass", [AsyncAdaptedQueuePool, NullPool])
@pytest.mark.parametrize("driver", ASYNC_DRIVERS)
def test_the_ledger_agrees_with_the_server_in_asyncio(
    postgres16: EmbeddedPostgres, truth: Truth, driver: str, poolclass: Any, seed: int
) -> None:
    async def story() -> None:
        choose = random.Random(seed)
        name = new_name()
        limits = {} if poolclass is NullPool else {"pool_size": 2, "max_overflow": 2, "pool_timeout": 0.05}
        engine = create_async_engine(url(postgres16, driver.removesuffix("_async")), poolclass=poolclass, **limits)
        api.instrument(engine, name=name)
        held: list[Any] = []
        done = []
        for _ in range(STEPS):
            action = choose.choice(ASYNC_ACTIONS)
            done.append(action)
            await _async_action(action, engine, held, choose)
            gc.collect()
            await asyncio.sleep(0)
            try:
                await truth.agrees_in_a_loop(name)
            except BaseException:
                print("steps:", done)  # noqa: T201
                raise
        held.clear()
        gc.collect()
        await engine.dispose()

    with warnings.catch_warnings(), notices_lost_clients(postgres16):
        warnings.simplefilter("ignore")  # SQLAlchemy's, of connections that the collector found
        asyncio.run(story())


@contextlib.contextmanager
def notices_lost_clients(server: EmbeddedPostgres) -> Iterator[None]:
    """Let a statement end with its client.

    A request to cancel that overtakes its statement does nothing; psycopg then closes its end after 5 s, and the server
    would go on for as long as the statement takes, with a connection that nobody has.
    """
    with contextlib.closing(servers.open_connection(server)) as session:
        servers.query(session, "ALTER ROLE postgres SET client_connection_check_interval = '100ms'")
        try:
            yield
        finally:
            servers.query(session, "ALTER ROLE postgres RESET client_connection_check_interval")


ASYNC_ACTIONS = (
    "connect", "connect", "connect", "close", "invalidate", "soft_invalidate", "dispose", "dispose_without_closing", "drop",
    "drop_in_cycle", "cancel", "detach", "timeout", "end_of_task",
)  # fmt: skip


async def _async_action(action: str, engine: AsyncEngine, held: list[Any], choose: random.Random) -> None:
    takes_none = {"connect", "dispose", "dispose_without_closing", "cancel", "timeout", "end_of_task"}
    connection = held.pop(choose.randrange(len(held))) if held and action not in takes_none else None
    if action == "connect":
        with contextlib.suppress(PoolTimeoutError):
            held.append(await engine.connect())
    elif action == "dispose":
        await engine.dispose()
    elif action == "dispose_without_closing":
        await engine.dispose(close=False)
    elif action == "timeout":
        taken: list[Any] = []
        with contextlib.suppress(PoolTimeoutError):
            while len(taken) < 5:
                taken.append(await engine.connect())
        for each in taken:
            await each.close()
    elif action == "end_of_task":
        await asyncio.create_task(_async_action("connect", engine, held, choose))
    elif connection is not None and action == "drop_in_cycle":
        cycle = [connection]
        cycle.append(cycle)
    elif connection is not None and action == "soft_invalidate":
        raw = await connection.get_raw_connection()
        if not raw.is_detached:
            raw.invalidate(soft=True)
        held.append(connection)
    elif action == "cancel":
        task = asyncio.create_task(_sleep_in_query(engine))
        await asyncio.sleep(choose.choice([0, 0.001, 0.03]))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, PoolTimeoutError):
            await task
    elif connection is not None and action == "close":
        await connection.close()
    elif connection is not None and action == "invalidate":
        await connection.invalidate()
        await connection.close()
    elif connection is not None and action == "detach":
        (await connection.get_raw_connection()).detach()
        held.append(connection)


async def _sleep_in_query(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("select pg_sleep(30)"))
