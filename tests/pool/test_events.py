"""What SQLAlchemy does and says on each action, and that the ledger agrees with the server after it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AssertionPool, NullPool, QueuePool, SingletonThreadPool, StaticPool

from pgleak.pool import api
from pool_support import ASYNC_DRIVERS, SYNC_DRIVERS, Counts, Recorder, Truth, counts, new_name, pool_of, url

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from sqlalchemy.engine import Engine

    from pgleak.demo.embedded import EmbeddedPostgres


# Drivers warn of connections that are dropped unclosed, which is what half of the actions here are.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


class Pool:
    """An instrumented engine, its events, and the ledger held against the server."""

    def __init__(self, engine: Engine, truth: Truth) -> None:
        self.name = new_name()
        self.engine = engine
        self.truth = truth
        self.events = Recorder(engine)
        api.instrument(engine, name=self.name)

    def shows(self, events: list[str] | None = None, **expected: int) -> None:
        if events is not None:
            assert self.events.taken() == events
        assert counts(self.name) == Counts(**expected)
        self.truth.agrees(self.name)

    def closed(self) -> dict[str, int]:
        return {reason: count for reason, count in pool_of(self.name).counters.closed.items() if count}


@pytest.fixture(params=SYNC_DRIVERS)
def make_pool(
    request: pytest.FixtureRequest, postgres16: EmbeddedPostgres, truth: Truth
) -> Iterator[Callable[..., Pool]]:
    made: list[Engine] = []

    def make(**options: Any) -> Pool:
        made.append(create_engine(url(postgres16, request.param), **options))
        return Pool(made[-1], truth)

    yield make
    for engine in made:
        engine.dispose()


def test_first_connect_and_close(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool()
    connection = pool.engine.raw_connection()
    pool.shows(["first_connect", "connect", "checkout"], used=1)
    connection.close()
    pool.shows(["reset", "checkin"], idle=1)
    assert pool.closed() == {}


def test_overflow_is_closed_after_it_is_returned(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(pool_size=1, max_overflow=1)
    first, second = pool.engine.raw_connection(), pool.engine.raw_connection()
    pool.shows(used=2)
    first.close()
    pool.events.taken()
    second.close()
    pool.shows(["reset", "checkin", "close"], idle=1)
    assert pool.closed() == {"returned": 1}


def test_a_null_pool_closes_what_is_returned(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(poolclass=NullPool)
    connection = pool.engine.raw_connection()
    pool.events.taken()
    pool.shows(used=1)
    connection.close()
    pool.shows(["reset", "checkin", "close"])
    assert pool.closed() == {"returned": 1}


def test_hard_invalidate(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool()
    connection = pool.engine.raw_connection()
    pool.events.taken()
    connection.invalidate()
    pool.shows(["invalidate", "close", "checkin without connection"])
    assert pool.closed() == {"invalidated": 1}


def test_soft_invalidate(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool()
    connection = pool.engine.raw_connection()
    pool.events.taken()
    connection.invalidate(soft=True)
    pool.shows(["soft_invalidate"], used=1)
    connection.close()
    pool.shows(["reset", "checkin"], idle=1)
    again = pool.engine.raw_connection()
    pool.shows(["close", "connect", "checkout"], used=1)
    assert pool.closed() == {"soft_invalidated": 1}
    again.close()


def test_recycling_replaces_the_connection(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(pool_recycle=0)
    pool.engine.raw_connection().close()
    pool.events.taken()
    before = pool.closed().get("recycled", 0)  # an age of 0 may have been exceeded at once
    connection = pool.engine.raw_connection()
    pool.shows(["close", "connect", "checkout"], used=1)
    assert pool.closed() == {"recycled": before + 1}
    connection.close()


def test_detach_then_close(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool()
    connection = pool.engine.raw_connection()
    pool.events.taken()
    connection.detach()
    pool.shows(["detach"], detached=1)
    connection.close()
    pool.shows(["reset", "close_detached"])
    assert pool.closed() == {"detached": 1}


def test_detach_then_dropped(make_pool: Callable[..., Pool]) -> None:
    """Not a single event tells of it: only the death of the driver's own object does."""
    pool = make_pool()
    connection = pool.engine.raw_connection()
    connection.detach()
    pool.events.taken()
    del connection
    gc.collect()
    pool.shows([])
    assert pool.closed() == {"collected": 1}


def test_a_dropped_connection_comes_back_through_the_collector(make_pool: Callable[..., Pool]) -> None:
    """The events look ordinary; that the proxy is dead tells the difference."""
    pool = make_pool()
    connection = pool.engine.raw_connection()
    pool.events.taken()
    del connection
    gc.collect()
    pool.shows(["reset", "checkin"], idle=1)
    site = f"{__name__}:{test_a_dropped_connection_comes_back_through_the_collector.__name__}"
    assert pool_of(pool.name).counters.returned_by_gc == {site: 1}
    assert pool_of(pool.name).sites == {}, "tells nothing about how long the site usually holds"


def test_dispose_closes_the_idle_ones_only(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool()
    held, returned = pool.engine.raw_connection(), pool.engine.raw_connection()
    returned.close()
    pool.events.taken()
    pool.engine.dispose()
    pool.shows(["close"], orphaned=1)
    assert pool.closed() == {"disposed": 1}
    another = pool.engine.raw_connection()
    pool.shows(["first_connect", "connect", "checkout"], orphaned=1, used=1)  # the new pool's first
    another.close()
    held.close()


def test_returned_after_dispose(make_pool: Callable[..., Pool]) -> None:
    """It goes back into the old pool, which never closes it; it lives as long as something keeps that pool."""
    pool = make_pool()
    held = pool.engine.raw_connection()
    old_pool = pool.engine.pool
    pool.engine.dispose()
    pool.events.taken()
    held.close()
    pool.shows(["reset", "checkin"], orphaned=1)
    del old_pool, held
    gc.collect()
    pool.shows([])
    assert pool.closed() == {"collected": 1}


def test_dispose_without_closing_orphans_what_is_idle(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool()
    pool.engine.raw_connection().close()
    old_pool = pool.engine.pool
    pool.events.taken()
    pool.engine.dispose(close=False)
    pool.shows([], orphaned=1)
    del old_pool
    gc.collect()
    pool.shows([])


def test_a_dropped_engine_says_nothing(
    make_pool: Callable[..., Pool], postgres16: EmbeddedPostgres, truth: Truth
) -> None:
    pool = Pool(create_engine(url(postgres16)), truth)
    pool.engine.raw_connection().close()
    pool.shows(idle=1)
    pool.events.taken()
    del pool.engine
    gc.collect()
    pool.shows([])
    assert pool_of(pool.name).engines == 0
    assert pool.closed() == {"collected": 1}


def test_a_static_pool_with_two_holders(make_pool: Callable[..., Pool]) -> None:
    """Two checkouts, one checkin: and yet the connection is in use until the second is done."""
    pool = make_pool(poolclass=StaticPool)
    first, second = pool.engine.raw_connection(), pool.engine.raw_connection()
    pool.shows(["first_connect", "connect", "checkout", "checkout"], used=1)
    first.close()
    pool.shows(["reset", "checkin"], used=1)
    second.close()
    pool.shows(["reset"], idle=1)


def test_a_singleton_thread_pool_hands_the_same_one_out_again(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(poolclass=SingletonThreadPool)
    first, second = pool.engine.raw_connection(), pool.engine.raw_connection()
    pool.shows(["first_connect", "connect", "checkout"], used=1)
    first.close()
    pool.shows([], used=1)
    second.close()
    pool.shows(["reset", "checkin"], idle=1)
    assert pool_of(pool.name).counters.checkouts == 1


def test_an_assertion_pool(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(poolclass=AssertionPool)
    connection = pool.engine.raw_connection()
    with pytest.raises(AssertionError):
        pool.engine.raw_connection()
    pool.shows(used=1)
    assert pool_of(pool.name).pending == 0
    connection.close()
    pool.shows(idle=1)


def test_a_timeout_fires_no_event(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(pool_size=1, max_overflow=0, pool_timeout=0.1)
    connection = pool.engine.raw_connection()
    pool.events.taken()
    with pytest.raises(PoolTimeoutError):
        pool.engine.raw_connection()
    pool.shows([], used=1)
    counters = pool_of(pool.name).counters
    assert (counters.timeouts, counters.checkouts) == (1, 1)
    assert counters.wait_seconds >= 0.1
    connection.close()


def test_a_connection_that_the_server_ended(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(pool_pre_ping=True)
    pool.engine.raw_connection().close()
    (pid,) = pool.truth.pids(pool.name)
    with pool.engine.connect() as other:
        other.execute(text("select 1"))
        other.invalidate()
    pool.shows()
    pool.engine.raw_connection().close()
    pool.shows(idle=1)
    assert pool.truth.pids(pool.name) != {pid}


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"poolclass": QueuePool, "pool_size": 3, "max_overflow": 4}, 7),
        ({"poolclass": QueuePool, "max_overflow": -1}, float("inf")),
        ({"poolclass": QueuePool, "pool_size": 0}, float("inf")),
        ({"poolclass": NullPool}, float("inf")),
        ({"poolclass": StaticPool}, 1),
        ({"poolclass": AssertionPool}, 1),
        ({"poolclass": SingletonThreadPool, "pool_size": 6}, 6),
    ],
)
def test_the_most_that_a_pool_opens(make_pool: Callable[..., Pool], options: dict[str, Any], limit: float) -> None:
    pool = make_pool(**options)
    assert pool_of(pool.name).connections_max == limit
    assert pool_of(pool.name).pool_class == options["poolclass"].__name__


# ---- async


@pytest.fixture(params=ASYNC_DRIVERS)
def run_async(request: pytest.FixtureRequest, postgres16: EmbeddedPostgres, truth: Truth) -> Callable[..., None]:
    def run(story: Callable[[AsyncEngine, Pool], Coroutine[Any, Any, None]], **options: Any) -> None:
        async def whole() -> None:
            engine = create_async_engine(url(postgres16, request.param.removesuffix("_async")), **options)
            await story(engine, Pool(engine.sync_engine, truth))
            await engine.dispose()

        asyncio.run(whole())

    return run


def test_async_connect_and_close(run_async: Callable[..., None]) -> None:
    async def story(engine: AsyncEngine, pool: Pool) -> None:
        connection = await engine.connect()
        pool.shows(["first_connect", "connect", "checkout"], used=1)
        await connection.close()
        pool.shows(["reset", "checkin"], idle=1)
        assert pool_of(pool.name).pool_class == "AsyncAdaptedQueuePool"

    run_async(story)


def test_an_async_connection_dropped_unreturned(run_async: Callable[..., None]) -> None:
    """Never a checkin: the collector resets it, detaches it, and at best terminates it."""

    async def story(engine: AsyncEngine, pool: Pool) -> None:
        connection = await engine.connect()
        pool.events.taken()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SQLAlchemy's own, on each of these
            del connection
            gc.collect()
            await asyncio.sleep(0)
        seen = pool.events.taken()
        assert seen[:2] == ["reset", "detach"]
        assert seen[2:] in (["close_detached"], [])
        pool.shows([])
        assert sum(pool_of(pool.name).counters.returned_by_gc.values()) == 1
        assert pool.closed() == {"collected": 1}

    run_async(story)


def test_a_task_cancelled_in_a_query(run_async: Callable[..., None]) -> None:
    async def story(engine: AsyncEngine, pool: Pool) -> None:
        async def work() -> None:
            async with engine.connect() as connection:
                await connection.execute(text("select pg_sleep(30)"))

        task = asyncio.create_task(work())
        while not counts(pool.name).used:  # noqa: ASYNC110 - the ledger has no event
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        pool.events.taken()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert counts(pool.name).used == 0
        pool.truth.agrees(pool.name)

    run_async(story)


def test_async_invalidate_detach_and_dispose(run_async: Callable[..., None]) -> None:
    async def story(engine: AsyncEngine, pool: Pool) -> None:
        connection = await engine.connect()
        await connection.invalidate()
        await connection.close()
        pool.shows()
        detached = await engine.connect()
        (await detached.get_raw_connection()).detach()
        pool.shows(detached=1)
        await detached.close()
        del detached  # SQLAlchemy cannot close psycopg's without an await: it closes as it dies
        pool.shows()
        held = await engine.connect()
        await engine.dispose()
        pool.shows(orphaned=1)
        await held.close()

    run_async(story)
