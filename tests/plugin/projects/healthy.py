"""Nothing here is a leak, and nobody must say so."""

from __future__ import annotations

import os
import threading
import time
import unittest
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool, StaticPool

import pgleak

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = os.environ["DATABASE_URL"]
SELECT = text("SELECT 1")
kept: list[Any] = []
of_the_process = create_engine(URL)


def test_connection_closed(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(SELECT)


def test_session_closed(engine: Engine) -> None:
    with Session(engine) as session:
        session.execute(SELECT)


def test_session_committed_and_kept(engine: Engine) -> None:
    session = Session(engine)
    kept.append(session)
    session.execute(SELECT)
    session.commit()


def test_engine_made_on_import() -> None:
    with of_the_process.connect() as connection:
        connection.execute(SELECT)


def test_engine_disposed() -> None:
    engine = create_engine(URL)
    with engine.connect() as connection:
        connection.execute(SELECT)
    engine.dispose()


def test_engine_never_connected() -> None:
    create_engine(URL)


def test_null_pool() -> None:
    engine = create_engine(URL, poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(SELECT)


def test_static_pool_in_memory() -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    kept.append(engine)
    with Session(engine) as first, Session(engine) as second:
        first.execute(SELECT)
        second.execute(SELECT)
    with engine.connect() as one:
        other = engine.connect()
        one.execute(SELECT)
        other.close()


def test_sqlite_in_memory() -> None:
    engine = create_engine("sqlite:///:memory:")
    with Session(engine) as session, engine.connect() as connection:
        session.execute(SELECT)
        connection.execute(SELECT)


def test_thread_that_needs_a_moment(engine: Engine) -> None:
    held = threading.Event()

    def work() -> None:
        with engine.connect():
            held.set()
            time.sleep(0.2)

    threading.Thread(target=work, daemon=True).start()
    assert held.wait(10)


def test_expected_hold(engine: Engine) -> None:
    with pgleak.expected_hold("listener", max_seconds=600):
        kept.append(engine.connect())


def test_scoped_session_removed(engine: Engine) -> None:
    sessions = scoped_session(sessionmaker(engine))
    kept.append(sessions)
    sessions.execute(SELECT)
    sessions.remove()


@pytest.mark.pgleak(allow="session")
def test_allowed_by_kind(engine: Engine) -> None:
    session = Session(engine)
    kept.append(session)
    session.execute(SELECT)


@pytest.mark.pgleak(allow=["*:test_allowed_by_place", "engine"])
def test_allowed_by_place(engine: Engine) -> None:
    kept.append(engine.connect())


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    made = Session(engine)
    yield made
    made.close()


def test_fixture_closes_after_the_test(session: Session) -> None:
    session.execute(SELECT)


@pytest.fixture(scope="module")
def module_connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


def test_module_connection(module_connection: Connection) -> None:
    module_connection.execute(SELECT)


@pytest.fixture(scope="module")
def module_session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as made:
        yield made


def test_module_session_begins_in_a_test(module_session: Session) -> None:
    module_session.execute(SELECT)


def test_module_session_goes_on(module_session: Session) -> None:
    module_session.execute(SELECT)
    module_session.commit()
    module_session.execute(SELECT)


@pytest.fixture(scope="class")
def class_engine() -> Iterator[Engine]:
    made = create_engine(URL)
    yield made
    made.dispose()


class TestClassScope:
    def test_uses_it(self, class_engine: Engine) -> None:
        with class_engine.connect() as connection:
            connection.execute(SELECT)


@pytest.fixture
def asks_for_a_wider_one(request: pytest.FixtureRequest) -> Connection:
    found: Connection = request.getfixturevalue("late_connection")
    return found


@pytest.fixture(scope="module")
def late_connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


def test_wider_fixture_made_on_demand(asks_for_a_wider_one: Connection) -> None:
    asks_for_a_wider_one.execute(SELECT)


class TestOldStyle(unittest.TestCase):
    engine: Engine
    connection: Connection

    @classmethod
    def setUpClass(cls) -> None:
        cls.engine = create_engine(URL)
        cls.connection = cls.engine.connect()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.connection.close()
        cls.engine.dispose()

    def test_unittest(self) -> None:
        self.connection.execute(SELECT)


def test_application_instruments_itself(engine: Engine) -> None:
    pgleak.instrument(engine, name="shop")
    with engine.connect() as connection:
        connection.execute(SELECT)
    pgleak.uninstrument()


@pytest.fixture(scope="module")
def app() -> Iterator[tuple[Flask, SQLAlchemy]]:
    made = Flask("shop")
    made.config["SQLALCHEMY_DATABASE_URI"] = URL
    db = SQLAlchemy(made)

    @made.get("/")
    def index() -> str:
        return str(db.session.scalar(SELECT))

    yield made, db
    with made.app_context():
        db.engine.dispose()


def test_flask_sqlalchemy(app: tuple[Flask, SQLAlchemy]) -> None:
    made, db = app
    assert made.test_client().get("/").text == "1"
    with made.app_context():
        db.session.execute(SELECT)
