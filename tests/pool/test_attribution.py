"""Who holds what, from where, and where he stands now."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import servers
from pgleak.pool import api
from pgleak.pool.marks import context, expected_hold, set_context
from pgleak.pool.survey import survey
from pgleak.pool.suspects import judge
from pool_support import new_name, pool_of, url

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.pool.snapshot import Checkout, ProcessSnapshot

HERE = Path(__file__).read_text(encoding="utf-8").splitlines()


def line(mark: str) -> int:
    """The number of the line here that ends with this mark."""
    return next(number for number, text in enumerate(HERE, 1) if text.endswith(f"# {mark}"))


def watched(server: EmbeddedPostgres) -> tuple[Engine, Callable[[], Checkout]]:
    engine, name = create_engine(url(server)), new_name()
    api.instrument(engine, name=name)

    def held() -> Checkout:
        (checkout,) = pool_of(name).checkouts
        return checkout

    return engine, held


def test_the_line_that_checked_a_connection_out(postgres16: EmbeddedPostgres) -> None:
    engine, held = watched(postgres16)

    def repository() -> Any:
        return engine.connect()  # THE CHECKOUT

    def service() -> Any:
        return repository()  # ITS CALLER

    connection = service()
    checkout = held()
    assert checkout.site == checkout.frames[0].site == f"{__name__}:" + _name(repository)
    assert [(frame.file, frame.line) for frame in checkout.frames[:2]] == [
        (__file__, line("THE CHECKOUT")),
        (__file__, line("ITS CALLER")),
    ]
    assert len(checkout.frames) <= 4
    assert (checkout.kind, checkout.place) == ("connection", "pool")
    connection.close()
    engine.dispose()


def test_each_checkout_has_its_own_callers(postgres16: EmbeddedPostgres) -> None:
    """Also where a place is known from before."""
    engine, held = watched(postgres16)

    def repository() -> Any:
        return engine.connect()

    def import_orders() -> Any:
        return repository()

    def send_mails() -> Any:
        return repository()

    for service in (import_orders, send_mails, import_orders, send_mails):
        with service():
            assert [frame.function for frame in held().frames[:2]] == [
                _name(function) for function in (repository, service)
            ]
    engine.dispose()


WAYS: dict[str, Any] = {
    "connect": lambda engine: engine.connect(),
    "raw_connection": lambda engine: engine.raw_connection(),
    "the pool itself": lambda engine: engine.pool.connect(),
    "by a library": lambda engine: singledispatch(Engine.connect)(engine),  # noqa: PLW0108 - it is the place
    "session": lambda engine: Session(engine).connection(),
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_leads_to_the_pool_the_place_is_the_applications(postgres16: EmbeddedPostgres, way: str) -> None:
    """The first time, when its file is looked at, and each time after that."""
    engine, held = watched(postgres16)

    def take() -> Any:
        return WAYS[way](engine)

    for _ in range(3):
        connection = take()
        frames = held().frames
        assert (frames[0].file, HERE[frames[0].line - 1].split('"')[1]) == (__file__, way)
        assert [frame.function for frame in frames[1:3]] == [
            _name(take),
            test_whatever_leads_to_the_pool_the_place_is_the_applications.__name__,
        ]
        assert held().kind == ("session" if way == "session" else "connection")
        connection.close()
        del connection
        gc.collect()
    engine.dispose()


def test_code_without_a_file_name_is_told_from_sqlalchemys_own(postgres16: EmbeddedPostgres) -> None:
    """SQLAlchemy 2.0 compiles its decorators under the name that `exec` and `python -c` give."""
    engine, held = watched(postgres16)
    namespace: dict[str, Any] = {"__name__": "shop", "engine": engine, "Session": Session}
    exec("def take():\n    session = Session(engine)\n    session.connection()\n    return session\n", namespace)

    def in_a_file() -> Any:
        session = Session(engine)
        session.connection()
        return session

    engine.connect().close()
    for _ in range(2):
        for take, site in ((in_a_file, f"{__name__}:{_name(in_a_file)}"), (namespace["take"], "shop:take")):
            session = take()
            assert (held().site, held().kind) == (site, "session")
            assert held().frames[1].function == test_code_without_a_file_name_is_told_from_sqlalchemys_own.__name__
            session.close()
    engine.dispose()


def _name(function: Any) -> str:
    """As in the label: qualified from Python 3.11 on."""
    code = function.__code__
    return str(getattr(code, "co_qualname", code.co_name)).replace("<locals>.", "")


def test_the_line_at_which_a_session_first_spoke(postgres16: EmbeddedPostgres) -> None:
    engine, held = watched(postgres16)
    session = Session(engine)
    session.execute(text("select 1"))  # THE SESSION
    checkout = held()
    assert checkout.kind == "session"
    assert (checkout.frames[0].file, checkout.frames[0].line) == (__file__, line("THE SESSION"))
    session.close()
    engine.dispose()


def test_an_async_session_names_the_coroutine(postgres16: EmbeddedPostgres) -> None:
    async def story() -> None:
        engine, name = create_async_engine(url(postgres16, "asyncpg")), new_name()
        api.instrument(engine, name=name)
        release = asyncio.Event()

        async def endpoint() -> None:
            async with AsyncSession(engine) as session:
                await session.execute(text("select 1"))  # THE COROUTINE
                await release.wait()  # WHERE IT STANDS

        task = asyncio.create_task(endpoint(), name="the endpoint")
        while not pool_of(name).checkouts or not pool_of(name).checkouts[0].standing:  # noqa: ASYNC110 - the ledger has no event
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        (checkout,) = pool_of(name).checkouts
        assert checkout.kind == "session"
        assert checkout.frames[0].line == line("THE COROUTINE")
        assert (checkout.owner.kind, checkout.owner.name, checkout.owner.state) == ("task", "the endpoint", "alive")
        assert checkout.standing[0].line == line("WHERE IT STANDS")
        release.set()
        await task
        assert pool_of(name).checkouts == ()
        await engine.dispose()

    asyncio.run(story())


def test_what_runs_synchronously_for_a_coroutine_names_its_callers_too(postgres16: EmbeddedPostgres) -> None:
    async def story() -> None:
        engine, name = create_async_engine(url(postgres16, "asyncpg")), new_name()
        api.instrument(engine, name=name)

        def load(session: Session) -> None:
            session.execute(text("select 1"))

        async def endpoint() -> None:
            async with AsyncSession(engine) as session:
                await session.run_sync(load)
                (checkout,) = pool_of(name).checkouts
                assert [frame.function for frame in checkout.frames[:3]] == [
                    _name(function) for function in (load, endpoint, story)
                ]

        for _ in range(3):
            await endpoint()
        await engine.dispose()

    asyncio.run(story())


def test_a_finished_task_is_a_dead_owner(postgres16: EmbeddedPostgres) -> None:
    async def story() -> None:
        engine, name = create_async_engine(url(postgres16, "asyncpg")), new_name()
        api.instrument(engine, name=name)
        kept: list[Any] = []

        async def forgetful() -> None:
            kept.append(await engine.connect())

        await asyncio.create_task(forgetful())
        (checkout,) = pool_of(name).checkouts
        assert (checkout.owner.kind, checkout.owner.state, checkout.standing) == ("task", "dead", ())
        await kept[0].close()
        await engine.dispose()

    asyncio.run(story())


def test_a_living_thread_and_where_it_stands(postgres16: EmbeddedPostgres) -> None:
    engine, held = watched(postgres16)
    ready, release = threading.Event(), threading.Event()

    def work() -> None:
        with engine.connect():
            ready.set()
            release.wait(30)  # THE THREAD WAITS

    thread = threading.Thread(target=work, name="the worker")
    thread.start()
    assert ready.wait(10)
    servers.wait_until(lambda: held().standing and held().standing[0].line == line("THE THREAD WAITS"))
    assert (held().owner.kind, held().owner.name, held().owner.state) == ("thread", "the worker", "alive")
    release.set()
    thread.join()
    engine.dispose()


@pytest.mark.parametrize("serves", [False, True], ids=["a job", "a request"])
def test_an_executor_that_runs_jobs_is_told_from_one_that_serves_requests(
    postgres16: EmbeddedPostgres, serves: bool
) -> None:
    """Both have threads of one kind; what is submitted from a request has its context, and no teardown."""
    engine, held = watched(postgres16)
    registry = scoped_session(sessionmaker(engine))
    app = Flask(__name__)

    @app.get("/")
    def load() -> str:
        return str(registry.scalar(text("select 1")))

    with ThreadPoolExecutor(1) as executor, context("GET /"):
        job = app.test_client().get if serves else copy_context().run
        executor.submit(job, "/" if serves else load).result()  # type: ignore[arg-type]
        assert (held().owner.state, held().owner.runs_jobs) == ("alive", not serves)
        assert held().context == ("" if serves else "GET /")
        executor.submit(registry.remove).result()
    engine.dispose()


def test_a_thread_of_its_own_runs_no_jobs(postgres16: EmbeddedPostgres) -> None:
    engine, held = watched(postgres16)
    with engine.connect():
        assert not held().owner.runs_jobs
    engine.dispose()


def test_an_ended_thread_is_a_dead_owner_though_its_ident_lives_on(postgres16: EmbeddedPostgres) -> None:
    """The next thread gets the same ident from the system; it did not check anything out."""
    engine, held = watched(postgres16)
    registry = scoped_session(sessionmaker(engine))
    sessions = []

    def work() -> None:
        registry.execute(text("select 1"))
        sessions.append(registry())  # kept, as a list of recent failures keeps a traceback

    ended = threading.Thread(target=work, name="ended")
    ended.start()
    ended.join()
    release = threading.Event()
    others = [threading.Thread(target=release.wait, args=(30,)) for _ in range(4)]
    for other in others:
        other.start()
    servers.wait_until(lambda: held().owner.state == "dead")
    assert (held().owner.name, held().standing) == ("ended", ())
    release.set()
    for other in others:
        other.join()
    sessions.pop().close()
    engine.dispose()


def test_an_owner_is_dead_since_its_death_and_not_since_the_checkout(postgres16: EmbeddedPostgres) -> None:
    engine, _ = watched(postgres16)
    ready, release = threading.Event(), threading.Event()
    kept = []

    def work() -> None:
        kept.append(engine.connect())
        ready.set()
        release.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(10)
    long_after = time.monotonic() + 3600

    def later(seconds: float) -> ProcessSnapshot:
        return survey(api.LEDGER, monotonic_clock=lambda: long_after + seconds)

    (living,) = later(0).pools[0].checkouts
    assert (living.owner.state, living.owner.dead_for) == ("alive", 0)
    assert [verdict.cause for verdict in judge(later(0))] == ["overdue"]
    release.set()
    thread.join()
    servers.wait_until(lambda: later(0).pools[0].checkouts[0].owner.state == "dead")
    assert judge(later(1)) == (), "it may have handed the connection over"
    assert later(4).pools[0].checkouts[0].owner.dead_for == 4
    assert judge(later(4)) == ()
    assert [(verdict.cause, verdict.limit) for verdict in judge(later(5.5))] == [("owner_dead", 5.0)]
    kept[0].close()
    engine.dispose()


def test_a_synchronous_engine_in_a_coroutine_belongs_to_the_task(postgres16: EmbeddedPostgres) -> None:
    engine, held = watched(postgres16)
    kept = []

    async def endpoint() -> None:
        kept.append(engine.connect())

    asyncio.run(endpoint())
    assert (held().owner.kind, held().owner.state) == ("task", "dead")
    kept[0].close()
    engine.dispose()


def test_known_long_work_and_what_it_serves(postgres16: EmbeddedPostgres) -> None:
    engine, held = watched(postgres16)
    with expected_hold("report", max_seconds=900), context("GET /report"):
        connection = engine.connect()
    assert held().context == "GET /report"
    assert held().expected is not None
    assert (held().expected.name, held().expected.max_seconds) == ("report", 900.0)  # type: ignore[union-attr]
    connection.close()
    set_context("job")
    with engine.connect():
        assert (held().context, held().expected) == ("job", None)
        with expected_hold("outer", max_seconds=2), expected_hold("inner", max_seconds=1):
            assert held().expected.name == "inner"  # type: ignore[union-attr]
        assert held().expected is None, "what was checked out before counts while the block lasts"
    set_context(None)
    with engine.connect():
        assert held().context == ""
    engine.dispose()


def test_expected_hold_is_for_its_own_task_only(postgres16: EmbeddedPostgres) -> None:
    async def story() -> None:
        engine, name = create_async_engine(url(postgres16, "asyncpg")), new_name()
        api.instrument(engine, name=name)
        done = asyncio.Event()

        async def report() -> None:
            async with engine.connect():
                with expected_hold("report", max_seconds=900):
                    await done.wait()

        async def page() -> None:
            async with engine.connect():
                await done.wait()

        tasks = [asyncio.create_task(report()), asyncio.create_task(page())]
        while len(pool_of(name).checkouts) < 2:  # noqa: ASYNC110 - the ledger has no event
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.02)
        assert sorted(bool(checkout.expected) for checkout in pool_of(name).checkouts) == [False, True]
        done.set()
        await asyncio.gather(*tasks)
        await engine.dispose()

    asyncio.run(story())


def test_a_dropped_session_stays_out_until_a_full_collection(postgres16: EmbeddedPostgres) -> None:
    engine, held = watched(postgres16)
    gc.collect()
    gc.disable()
    try:
        session = Session(engine)
        session.execute(text("select 1"))
        cycle = [session]
        cycle.append(cycle)  # type: ignore[arg-type]
        del session, cycle
        assert held().site.startswith(__name__)
    finally:
        gc.enable()
    gc.collect()
    (pool,) = api.snapshot().pools
    assert pool.checkouts == ()
    assert sum(pool.counters.returned_by_gc.values()) == 1
    engine.dispose()
