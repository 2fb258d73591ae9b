"""Three ways in, each idempotent and undone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import Pool, SingletonThreadPool

from pgleak.pool import api, checkouts
from pgleak.pool.connection import MARK
from pool_support import EVENTS, Counts, Truth, connect_for_others, counts, new_name, pool_of, url

if TYPE_CHECKING:
    from pgleak.demo.embedded import EmbeddedPostgres

MODIFIED = (
    (Pool, "connect"),
    (Pool, "_return_conn"),
    (SingletonThreadPool, "connect"),
    (Engine, "__init__"),
    (Session, "__init__"),
)
ORIGINALS = [getattr(owner, name) for owner, name in MODIFIED]


def test_one_engine(postgres16: EmbeddedPostgres) -> None:
    name = new_name()
    engine, other = create_engine(url(postgres16)), create_engine(url(postgres16))
    api.instrument(engine, name=name)
    with engine.connect(), other.connect():
        assert counts(name) == Counts(used=1)
        assert len(api.snapshot().pools) == 1
    engine.dispose()
    other.dispose()


def test_an_async_engine(postgres16: EmbeddedPostgres) -> None:
    async def story() -> None:
        name = new_name()
        engine = create_async_engine(url(postgres16, "asyncpg"))
        api.instrument(engine, name=name)
        async with engine.connect():
            assert counts(name) == Counts(used=1)
        await engine.dispose()

    asyncio.run(story())


def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="takes an Engine, an AsyncEngine or nothing, not str"):
        api.instrument("postgresql://")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": 5}, r"instrument\(name=...\) takes a string, not int"),
        ({"application_name": b"shop"}, r"instrument\(application_name=...\) takes a string, not bytes"),
        ({"limits": {"dead_owner": 10}}, r"takes pgleak.Limits, such as pgleak.Limits\(dead_owner=10\), not dict"),
        ({"on_suspect": "print"}, "takes a function of one argument, the verdict, not str"),
        ({"helpers": "shop.db"}, "takes names of modules, such as "),
        ({"helpers": [api]}, "takes names of modules, such as "),
    ],
)
def test_an_argument_of_another_type_is_refused_and_nothing_is_watched(wrong: dict[str, Any], said: str) -> None:
    """Taken, it would blind pgleak: whatever asks for a verdict would fail, and that is swallowed."""
    engine = create_engine("sqlite://")
    with pytest.raises(TypeError, match=said):
        api.instrument(engine, **wrong)
    assert not api.is_instrumented(engine)
    engine.dispose()


@pytest.mark.parametrize("given", [True, False])
def test_a_helper_that_takes_connections_for_others_is_not_the_place(
    postgres16: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, *, given: bool
) -> None:
    if not given:
        monkeypatch.setenv("PGLEAK_HELPERS", "other, pool_support")
    api.instrument(name=new_name(), helpers=["pool_support"] if given else None)
    engine = create_engine(url(postgres16))
    held = connect_for_others(engine)
    ((found,),) = (pool.checkouts for pool in api.snapshot().pools)
    assert found.site.startswith(f"{__name__}:test_a_helper_that_takes")
    api.instrument(helpers=())
    more = connect_for_others(engine)
    (pool,) = api.snapshot().pools
    assert {each.site.partition(":")[0] for each in pool.checkouts} == {__name__, "pool_support"}
    api.instrument(helpers=["pool_support"])  # which was a place, and is remembered as one
    last = connect_for_others(engine)
    (pool,) = api.snapshot().pools
    assert [each.site.partition(":")[0] for each in pool.checkouts] == [__name__, "pool_support", __name__]
    for each in (held, more, last):
        each.close()
    engine.dispose()


def test_every_engine_existing_and_future(postgres16: EmbeddedPostgres) -> None:
    """Also for code that imported create_engine before, and with the connections that are open already."""
    before = create_engine(url(postgres16))
    held = before.connect()
    returned = before.connect()
    returned.close()
    api.instrument()
    after = create_engine(url(postgres16))
    with after.connect():
        (pool,) = api.snapshot().pools
        assert pool.name == pool.server == f"127.0.0.1:{postgres16.port}/postgres"
        assert (pool.engines, len(pool.idle), len(pool.checkouts)) == (2, 1, 2)
        unknown = next(checkout for checkout in pool.checkouts if checkout.owner.state == "unknown")
        assert unknown.site == "(unknown)"
    held.close()
    (pool,) = api.snapshot().pools
    assert (len(pool.idle), len(pool.checkouts)) == (3, 0)
    before.dispose()
    after.dispose()


def test_one_name_for_every_engine_keeps_databases_and_applications_apart(postgres16: EmbeddedPostgres) -> None:
    name = new_name()
    before = create_engine(url(postgres16))
    api.instrument(name=name)
    after = create_engine(url(postgres16))
    other = create_engine(url(postgres16).set(database="template1"))
    with before.connect() as connection, after.connect(), other.connect():
        assert connection.execute(text("show application_name")).scalar() == name
        address = f"127.0.0.1:{postgres16.port}"
        assert counts(f"{name}/{address}/postgres") == Counts(used=2)
        assert counts(f"{name}/{address}/template1") == Counts(used=1)
    for engine in (before, after, other):
        engine.dispose()


def test_no_code_at_all(postgres16: EmbeddedPostgres) -> None:
    name = new_name()
    engine = create_engine(url(postgres16, plugin="pgleak", pgleak_name=name))
    assert "pgleak" not in str(engine.url)
    with engine.connect() as connection:
        assert counts(name) == Counts(used=1)
        assert connection.execute(text("show application_name")).scalar() == name
    engine.dispose()


def test_an_option_in_the_url_that_is_none_of_pgleaks_is_refused_with_those_that_are() -> None:
    """The driver would say `invalid connection option` at the first connection."""
    with pytest.raises(ArgumentError, match="pgleak_nam in the database URL: unknown; pgleak takes pgleak_name and "):
        create_engine("postgresql://db1/shop?plugin=pgleak&pgleak_nam=shop")


def test_a_pool_named_later_keeps_its_connections(postgres16: EmbeddedPostgres, truth: Truth) -> None:
    """The plugin first, under the default name; then the application's own code, under a better one."""
    first, second = new_name(), new_name()
    engine = create_engine(url(postgres16, plugin="pgleak", pgleak_application_name=first))
    held = engine.connect()
    api.instrument(engine, name=second)
    assert counts(second) == Counts(used=1)
    held.close()
    assert counts(second) == Counts(idle=1)
    engine.dispose()


def test_instrumenting_again_changes_nothing(postgres16: EmbeddedPostgres) -> None:
    name = new_name()
    engine = create_engine(url(postgres16))
    for _ in range(3):
        api.instrument(engine, name=name)
        api.instrument(engine)
        api.instrument()
    with engine.connect():
        assert counts(name) == Counts(used=1)
        assert pool_of(name).counters.checkouts == 1
    assert len(list(engine.pool.dispatch.close)) == 1
    engine.dispose()


def test_uninstrumenting_leaves_sqlalchemy_as_it_was(postgres16: EmbeddedPostgres) -> None:
    engine = create_engine(url(postgres16))
    view = engine.execution_options(isolation_level="AUTOCOMMIT")
    # whoever listens to connections of each kind, before and after
    before = _listeners(engine)
    api.instrument()
    api.instrument(engine, name=new_name())
    api.instrument(view)
    engine.connect().close()
    view.connect().close()
    engine.dispose()
    engine.connect().close()
    assert _listeners(engine) != before
    with engine.connect() as connection:
        record = connection.connection._connection_record
    carriers = record, engine.pool
    assert all(hasattr(carrier, MARK) for carrier in carriers)
    api.uninstrument()
    assert not any(hasattr(carrier, MARK) for carrier in carriers)
    assert _listeners(engine) == before
    assert "connect" not in vars(engine.dialect)
    assert [getattr(owner, name) for owner, name in MODIFIED] == ORIGINALS
    assert "connect" not in vars(engine.pool)
    assert api.snapshot().pools == ()
    engine.connect().close()
    engine.dispose()


@pytest.mark.parametrize("first", ["engine", "view", "all"])
def test_an_engine_with_options_is_the_same_engine(postgres16: EmbeddedPostgres, first: str) -> None:
    """`execution_options` makes an engine that shares pool, dialect and events with the one it is made of."""
    engine = create_engine(url(postgres16), pool_size=5, max_overflow=0)
    view = engine.execution_options(isolation_level="AUTOCOMMIT").execution_options(stream_results=True)
    api.instrument({"engine": engine, "view": view, "all": None}[first])
    api.instrument(view)
    api.instrument(engine)
    assert api.is_instrumented(engine)
    assert api.is_instrumented(view)
    with engine.connect(), view.connect():
        (pool,) = [pool for pool in api.snapshot().pools if pool.checkouts]
        assert (pool.engines, pool.connections_max, len(pool.checkouts)) == (1, 5, 2)
        assert (pool.counters.opened, pool.counters.checkouts) == (2, 2)
    api.uninstrument(view)
    assert not api.is_instrumented(engine)
    assert "connect" not in vars(engine.dialect)
    engine.dispose()


def test_a_pool_that_another_thread_just_looks_up_is_seen_all_the_same(
    postgres16: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was found unwatched, and what says that it is watched comes before the finding is remembered."""
    name = new_name()
    engine, other = create_engine(url(postgres16)), create_engine(url(postgres16))
    api.instrument(other)
    look, looked, go_on = checkouts._engine_of, threading.Event(), threading.Event()

    def look_slowly(pool: Pool) -> Any:
        found = look(pool)
        if threading.current_thread() is thread:
            looked.set()
            go_on.wait(10)
        return found

    monkeypatch.setattr(checkouts, "_engine_of", look_slowly)
    thread = threading.Thread(target=lambda: engine.connect().close())
    thread.start()
    assert looked.wait(10)
    api.instrument(engine, name=name)
    go_on.set()
    thread.join()
    with engine.connect():
        assert counts(name) == Counts(used=1)
    engine.dispose()


def test_uninstrumenting_one_engine_leaves_the_others(postgres16: EmbeddedPostgres) -> None:
    one, other = new_name(), new_name()
    engines = {name: create_engine(url(postgres16)) for name in (one, other)}
    for name, engine in engines.items():
        api.instrument(engine, name=name)
        engine.connect().close()
    api.uninstrument(engines[one])
    assert not api.is_instrumented(engines[one])
    for engine in engines.values():
        engine.connect().close()
    assert counts(other) == Counts(idle=1)
    assert pool_of(other).counters.checkouts == 2
    assert counts(one) == Counts()
    for engine in engines.values():
        engine.dispose()


def _listeners(engine: Engine) -> dict[str, list[Any]]:
    return {
        name: [each for each in getattr(engine.pool.dispatch, name) if hasattr(each, "pgleak")]
        for name in EVENTS
        if name != "first_connect"  # SQLAlchemy's own at the first connection, and then never again
    }


def test_a_database_of_another_kind_is_no_trouble() -> None:
    engine = create_engine("sqlite://")
    api.instrument(engine, name="lite")
    with engine.connect() as connection:
        assert connection.execute(text("select 1")).scalar() == 1
        assert counts("lite") == Counts(used=1)
    assert counts("lite").idle == 1
    (backend,) = pool_of("lite").idle
    assert (backend.pid, backend.server) == (None, "sqlite:/")
    engine.dispose()


def test_importing_the_pool_half_loads_no_driver_and_no_settings() -> None:
    program = "import sys, pgleak.pool.api, pgleak.pool.collector; print([m for m in sys.modules if m in {'psycopg2', 'yaml'} or m.startswith(('pgleak.postgres', 'pgleak.settings', 'pgleak.web', 'pgleak.cli'))])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_nothing_secret_is_reported(postgres16: EmbeddedPostgres) -> None:
    engine = create_engine(url(postgres16).set(password="hunter2"))
    api.instrument(engine)
    engine.connect().close()
    assert "hunter2" not in repr(api.snapshot())
    engine.dispose()


@pytest.mark.parametrize("way", ["argument", "url", "environment"])
def test_applications_that_have_only_an_application_name_are_told_apart(
    postgres16: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """They may share a database and a folder of state files, whose pools are added up by name."""
    engines = []
    for name in ("billing", "shop"):
        if way == "environment":
            monkeypatch.setenv("PGLEAK_APPLICATION_NAME", name)
        engines.append(create_engine(url(postgres16, **({"application_name": name} if way == "url" else {}))))
        api.instrument(engines[-1], application_name=name if way == "argument" else None)
        engines[-1].connect().close()
    address = f"127.0.0.1:{postgres16.port}/postgres"
    pools = {pool.name: pool.application_name for pool in api.snapshot().pools}
    assert pools == {f"billing/{address}": "billing", f"shop/{address}": "shop"}
    for engine in engines:
        engine.dispose()
