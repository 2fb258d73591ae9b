"""The application_name that both halves speak of: given where the user gave none, and never instead of his."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine

from pgleak.pool import api
from pool_support import SYNC_DRIVERS, pool_of, url

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from pgleak.demo.embedded import EmbeddedPostgres


def _server_name(engine: Engine) -> str:
    with engine.connect() as connection:
        name = connection.execute(
            text("select application_name from pg_stat_activity where pid = pg_backend_pid()")
        ).scalar()
    engine.dispose()
    return str(name)


@pytest.mark.parametrize("driver", SYNC_DRIVERS)
def test_a_nameless_connection_gets_the_name_of_its_pool(postgres16: EmbeddedPostgres, driver: str) -> None:
    engine = create_engine(url(postgres16, driver))
    api.instrument(engine, name="orders")
    assert _server_name(engine) == "orders"
    assert pool_of("orders").application_name == "orders"
    assert pool_of("orders").server.endswith(f":{postgres16.port}/postgres")


def test_a_nameless_asyncpg_connection_gets_the_name_of_its_pool(postgres16: EmbeddedPostgres) -> None:
    async def story(**options: Any) -> str:
        engine = create_async_engine(url(postgres16, "asyncpg"), **options)
        api.instrument(engine, name="orders")
        async with engine.connect() as connection:
            name = (await connection.execute(text("show application_name"))).scalar()
        await engine.dispose()
        return str(name)

    assert asyncio.run(story()) == "orders"
    own = {"server_settings": {"application_name": "mine", "jit": "off"}}
    assert asyncio.run(story(connect_args=own)) == "mine"
    assert own == {"server_settings": {"application_name": "mine", "jit": "off"}}


def test_a_nameless_connection_of_psycopg_in_asyncio_gets_the_name_of_its_pool(postgres16: EmbeddedPostgres) -> None:
    async def story(**options: Any) -> str:
        engine = create_async_engine(url(postgres16, "psycopg"), **options)
        api.instrument(engine, name="orders")
        async with engine.connect() as connection:
            name = (await connection.execute(text("show application_name"))).scalar()
        assert pool_of("orders").application_name == name
        await engine.dispose()
        return str(name)

    assert asyncio.run(story()) == "orders"
    assert asyncio.run(story(connect_args={"application_name": "mine"})) == "mine"


@pytest.mark.parametrize("driver", SYNC_DRIVERS)
def test_the_users_own_name_stands(postgres16: EmbeddedPostgres, driver: str) -> None:
    engine = create_engine(url(postgres16, driver), connect_args={"application_name": "mine"})
    api.instrument(engine, name="orders")
    assert _server_name(engine) == "mine"
    assert pool_of("orders").application_name == "mine"


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_name_in_the_options_or_the_environment_stands(
    postgres16: EmbeddedPostgres, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_engine(url(postgres16, driver), connect_args={"options": "-c application_name=mine"})
    api.instrument(engine, name="orders")
    assert _server_name(engine) == "mine"
    monkeypatch.setenv("PGAPPNAME", "from the environment")
    engine = create_engine(url(postgres16, driver))
    api.instrument(engine, name="orders2")
    assert _server_name(engine) == "from the environment"


@pytest.mark.parametrize("first", ["orders", None], ids=["a name", "the program's name"])
@pytest.mark.parametrize("every", [False, True], ids=["one engine", "every engine"])
def test_a_pool_named_anew_is_called_so_on_the_server_too(
    postgres16: EmbeddedPostgres, first: str | None, every: bool
) -> None:
    engine = create_engine(url(postgres16))
    api.instrument(None if every else engine, name=first)
    engine.connect().close()
    api.instrument(engine, name="shop")
    engine.dispose()
    assert _server_name(engine) == "shop"
    assert pool_of("shop").application_name == "shop"


@pytest.mark.parametrize("every", [False, True], ids=["one engine", "every engine"])
def test_a_pool_named_anew_keeps_the_application_name_that_was_given(postgres16: EmbeddedPostgres, every: bool) -> None:
    engine = create_engine(url(postgres16))
    api.instrument(None if every else engine, application_name="billing")
    for name in ("orders", "shop"):
        api.instrument(engine, name=name)
        assert _server_name(engine) == "billing"
    api.instrument(engine, application_name="invoices")
    assert _server_name(engine) == "invoices"
    assert pool_of("shop").application_name == "invoices"


def test_without_any_name_the_program_gives_one(postgres16: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGAPPNAME", raising=False)
    program = (
        "from pgleak.pool import api; from sqlalchemy import create_engine, text; import sys; api.instrument();"
        "e = create_engine(sys.argv[1]); c = e.connect(); print(c.execute(text('show application_name')).scalar())"
    )
    dsn = url(postgres16).render_as_string(hide_password=False)
    for environment, expected in (({}, "python"), ({"PGLEAK_APPLICATION_NAME": "billing"}, "billing")):
        with monkeypatch.context() as patch:
            for key, value in environment.items():
                patch.setenv(key, value)
            done = subprocess.run(
                [sys.executable, "-c", program, dsn], capture_output=True, text=True, check=True, timeout=60
            )
        assert done.stdout.strip() == expected


def test_other_listeners_for_connect_parameters_stay(postgres16: EmbeddedPostgres) -> None:
    engine = create_engine(url(postgres16))
    seen = []
    event.listen(engine, "do_connect", lambda *arguments: seen.append(arguments[3].get("fallback_application_name")))
    api.instrument(engine, name="orders")
    assert _server_name(engine) == "orders"
    api.uninstrument(engine)
    assert engine.dialect._has_events, "somebody else still listens"
    assert seen == [None]


def test_statements_do_not_pay_for_the_name(postgres16: EmbeddedPostgres) -> None:
    """With a listener for the event that opens connections, SQLAlchemy asks for others at each statement."""
    engine = create_engine(url(postgres16))
    api.instrument(engine, name="orders")
    engine.connect().close()
    assert not engine.dialect._has_events
    assert not engine._has_events
    engine.dispose()


def test_somebody_elses_wrappers_of_the_dialect_stay(postgres16: EmbeddedPostgres) -> None:
    """Put on before and after ours; each is called once, and ours is gone or does nothing afterwards."""
    engine = create_engine(url(postgres16))
    called: list[str] = []

    def wrap(name: str) -> None:
        inner = engine.dialect.connect

        def connect(*positional: Any, **parameters: Any) -> Any:
            called.append(name)
            return inner(*positional, **parameters)

        setattr(engine.dialect, "connect", connect)  # noqa: B010 - mypy takes no assignment to a method

    wrap("before")
    before = vars(engine.dialect)["connect"]
    api.instrument(engine, name="orders")
    assert _server_name(engine) == "orders"
    assert called == ["before"]
    api.uninstrument(engine)
    assert vars(engine.dialect)["connect"] is before
    api.instrument(engine, name="orders")
    wrap("after")
    api.uninstrument(engine)
    called.clear()
    assert _server_name(engine) != "orders"
    assert called == ["after", "before"]
