"""Beside other tools that wrap the same methods, engines that share a pool, and pools that the application made."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import Pool, QueuePool

import servers
from pgleak.pool import api
from pool_support import Counts, Truth, counts, new_name, pool_of, url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.demo.embedded import EmbeddedPostgres

METHODS = ("connect", "_return_conn")


class Passing:
    """A wrapper that passes for what it wraps, as those of the package wrapt do, with which tracers are made."""

    def __init__(self, wrapped: Any, calls: list[str], instance: object = None) -> None:
        self.wrapped, self.calls, self.instance = wrapped, calls, instance

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self.wrapped)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def __get__(self, instance: object, owner: type) -> Passing:
        return Passing(self.wrapped.__get__(instance, owner), self.calls, instance)

    def __call__(self, *arguments: Any) -> Any:
        assert isinstance(self.instance, Pool), "it is told whose method it is"
        self.calls.append(self.wrapped.__name__)
        return self.wrapped(*arguments)


@pytest.fixture
def pristine() -> Iterator[None]:
    methods = {name: vars(Pool)[name] for name in METHODS}
    yield
    api.uninstrument()
    for name, method in methods.items():
        setattr(Pool, name, method)
    api.uninstrument()


@pytest.mark.usefixtures("pristine")
def test_a_tool_that_wrapped_before_is_called_and_stays(postgres16: EmbeddedPostgres) -> None:
    calls: list[str] = []
    theirs = {name: Passing(vars(Pool)[name], calls) for name in METHODS}
    for name, method in theirs.items():
        setattr(Pool, name, method)
    name, engine = new_name(), create_engine(url(postgres16))
    api.instrument(engine, name=name)
    for times in (1, 2):
        engine.connect().close()
        assert calls == times * ["connect", "_return_conn"]
    assert pool_of(name).counters.checkouts == pool_of(name).counters.use.count == 2
    api.uninstrument()
    assert all(vars(Pool)[name] is method for name, method in theirs.items())
    engine.dispose()


@pytest.mark.usefixtures("pristine")
def test_a_tool_that_wrapped_afterwards_outlives_us(postgres16: EmbeddedPostgres) -> None:
    """Its wrapper has whatever attributes ours has: `functools.wraps` copies them."""
    calls: list[str] = []

    def wrap(owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            calls.append(f"{type(owner).__name__}.{name}")
            return inner(*arguments, **named)

        setattr(owner, name, wrapper)

    name, engine = new_name(), create_engine(url(postgres16))
    for _ in range(2):
        api.instrument(engine, name=name)
        if not calls:
            for method in METHODS:
                wrap(Pool, method)
            wrap(engine.dialect, "connect")
        engine.connect().close()
        engine.dispose()
        assert pool_of(name).counters.checkouts == pool_of(name).counters.use.count == 1
        api.uninstrument()
        calls.clear()
        engine.connect().close()
        engine.dispose()
        assert calls == ["type.connect", "PGDialect_psycopg2.connect", "type._return_conn"]


@pytest.mark.usefixtures("pristine")
def test_a_tool_that_puts_back_what_it_knew_blinds_us_until_the_next_instrument_only(
    postgres16: EmbeddedPostgres,
) -> None:
    known = {name: vars(Pool)[name] for name in METHODS}
    name, engine = new_name(), create_engine(url(postgres16))
    api.instrument(engine, name=name)
    for method, original in known.items():
        setattr(Pool, method, original)
    api.instrument()
    with engine.connect():
        assert counts(name) == Counts(used=1)
    assert counts(name) == Counts(idle=1)
    engine.dispose()


@pytest.mark.parametrize("same", [True, False], ids=["one name", "two names"])
def test_engines_that_share_a_pool_count_its_connections_once(
    postgres16: EmbeddedPostgres, truth: Truth, same: bool
) -> None:
    first, name = create_engine(url(postgres16)), new_name()
    second = create_engine(url(postgres16), pool=first.pool)
    api.instrument(first, name=name)
    api.instrument(second, name=name if same else new_name(), application_name=name)
    for engine in (first, second, first):
        with engine.connect() as connection:
            assert sum(len(pool.checkouts) for pool in api.snapshot().pools) == 1
        assert counts(name) == Counts(idle=1)
    with second.connect() as connection:
        connection.invalidate()  # a new one in the same record
        connection.exec_driver_sql("select 1")
        connection.rollback()
        assert counts(name) == Counts(used=1)
    truth.agrees(name)
    assert sum(pool.counters.opened for pool in api.snapshot().pools) == 2
    assert pool_of(name).counters.use.count == pool_of(name).counters.checkouts
    first.dispose()
    truth.agrees(name)
    assert counts(name) == Counts()
    second.dispose()


def test_a_pool_that_is_returned_to_in_its_own_way_is_seen(postgres16: EmbeddedPostgres) -> None:
    class Own(QueuePool):
        def _return_conn(self, record: Any) -> None:
            self._do_return_conn(record)

    name, engine = new_name(), create_engine(url(postgres16), poolclass=Own)
    api.instrument(engine, name=name)
    for _ in range(2):
        with engine.connect():
            assert counts(name) == Counts(used=1)
        assert counts(name) == Counts(idle=1)
    assert pool_of(name).counters.use.count == 2
    engine.dispose()


def test_a_pool_that_hands_on_is_not_who_wants_the_connection(postgres16: EmbeddedPostgres) -> None:
    class Own(QueuePool):
        def connect(self) -> Any:
            return self._timed()

        def _timed(self) -> Any:
            return super().connect()

    name, engine = new_name(), create_engine(url(postgres16), poolclass=Own)
    api.instrument(engine, name=name)

    def take(way: str) -> Any:
        return getattr(engine, way)()

    for way in ("connect", "connect", "raw_connection"):
        connection = take(way)
        (checkout,) = pool_of(name).checkouts
        here = test_a_pool_that_hands_on_is_not_who_wants_the_connection.__name__
        assert [frame.function.rpartition(".")[2] for frame in checkout.frames[:2]] == ["take", here]
        connection.close()
    connection = engine.pool.connect()
    (checkout,) = pool_of(name).checkouts
    assert checkout.site.endswith("_timed"), "nobody has asked the engine"
    connection.close()
    engine.dispose()


@pytest.mark.parametrize("again", [False, True], ids=["for good", "and anew"])
def test_uninstrumented_while_somebody_waits_for_a_connection(postgres16: EmbeddedPostgres, again: bool) -> None:
    engine, name = create_engine(url(postgres16), pool_size=1, max_overflow=0), new_name()
    api.instrument(engine, name=name)
    held = engine.connect()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(engine.connect)
        servers.wait_until(lambda: pool_of(name).pending == 1)
        api.uninstrument()
        if again:
            api.instrument(engine, name=name)
        held.close()
        connection = waiting.result(30)
    assert counts(name) == Counts(used=int(again))
    connection.close()
    assert counts(name) == Counts(idle=int(again))
    assert api.snapshot().errors == 0
    engine.dispose()
