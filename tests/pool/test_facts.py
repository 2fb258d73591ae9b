"""What the ledger is built on, and no other test here says: what SQLAlchemy and prometheus_client do by themselves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Metric
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from pgleak.pool.collector import PoolCollector
from pool_support import url

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.pool.snapshot import ProcessSnapshot


def pool_of(engine: Engine) -> QueuePool:
    assert isinstance(engine.pool, QueuePool)
    return engine.pool


def test_overflow_is_negative_while_a_pool_is_cold(postgres16: EmbeddedPostgres) -> None:
    engine = create_engine(url(postgres16), pool_size=5)
    assert pool_of(engine).overflow() == -5


def test_a_pool_counts_a_connection_as_out_while_it_comes_back(postgres16: EmbeddedPostgres) -> None:
    engine = create_engine(url(postgres16))
    out: list[int] = []
    event.listen(engine, "checkin", lambda *_: out.append(pool_of(engine).checkedout()))
    engine.raw_connection().close()
    assert (out, pool_of(engine).checkedout()) == ([1], 0)
    engine.dispose()


def test_a_pool_counts_records_without_a_connection_as_idle(postgres16: EmbeddedPostgres) -> None:
    engine = create_engine(url(postgres16))
    engine.raw_connection().invalidate()
    assert pool_of(engine).checkedin() == 1
    detached = engine.raw_connection()
    detached.detach()
    assert pool_of(engine).checkedin() == 1
    detached.close()
    engine.dispose()


def test_an_exception_in_a_checkin_listener_loses_the_slot(postgres16: EmbeddedPostgres) -> None:
    engine = create_engine(url(postgres16), pool_size=1, max_overflow=0, pool_timeout=0.01)

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    event.listen(engine, "checkin", fail)
    with pytest.raises(ZeroDivisionError):
        engine.raw_connection().close()
    event.remove(engine, "checkin", fail)
    with pytest.raises(PoolTimeoutError):
        engine.raw_connection()


def test_a_session_says_which_connection_it_begins_on(postgres16: EmbeddedPostgres) -> None:
    begun: list[tuple[Session, object]] = []

    def after_begin(session: Session, _transaction: object, connection: Any) -> None:
        begun.append((session, connection.connection.driver_connection))

    async def story() -> None:
        engine = create_async_engine(url(postgres16, "asyncpg"))
        async with AsyncSession(engine) as session:
            await session.execute(text("SELECT 1"))
            raw = await (await session.connection()).get_raw_connection()
            assert begun == [(session.sync_session, raw.driver_connection)]
        await engine.dispose()

    event.listen(Session, "after_begin", after_begin)
    try:
        engine = create_engine(url(postgres16))
        with Session(engine) as session:
            session.execute(text("SELECT 1"))
            assert begun == [(session, session.connection().connection.driver_connection)]
        engine.dispose()
        begun.clear()
        asyncio.run(story())
    finally:
        event.remove(Session, "after_begin", after_begin)


def test_a_dict_that_grows_while_it_is_read_has_to_be_copied_first() -> None:
    """As when a collection in the midst of reading brings a connection back."""
    connections = {1: "one"}
    reading, copied = iter(connections), iter(connections.copy())
    connections[2] = "another"
    with pytest.raises(RuntimeError, match="changed size"):
        next(reading)
    assert [*copied] == [1]


def test_a_metric_cannot_be_touched_from_within_itself() -> None:
    """So no listener touches one: it may run while the same thread, interrupted by the collector, holds the lock."""
    lock: Any = Counter("touched", "Touched.", registry=None)._value._lock
    with lock:
        assert not lock.acquire(blocking=False)


def test_registering_the_collector_reads_nothing() -> None:
    """A registry that collects by itself calls `collect()` of whatever it is given unless that describes itself."""
    read: list[str] = []

    def source() -> list[ProcessSnapshot]:
        read.append("pgleak's")
        return []

    class Plain:
        def collect(self) -> list[Metric]:
            read.append("one without describe()")
            return []

    registry = CollectorRegistry(auto_describe=True)
    registry.register(PoolCollector(source))
    assert read == []
    registry.register(Plain())
    assert read == ["one without describe()"]
