"""Each test leaves something behind that was taken in its line marked LEAK, and must be told of it."""

from __future__ import annotations

import gc
import os
import threading
import unittest
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, Engine, Integer, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

if TYPE_CHECKING:
    from collections.abc import Iterator

kept: list[Any] = []
ended = threading.Event()


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    number: Mapped[int] = mapped_column(Integer, primary_key=True)


@pytest.fixture(scope="module", autouse=True)
def end_threads() -> Iterator[None]:
    yield
    ended.set()
    kept.clear()


def test_connection_kept(engine: Engine) -> None:
    connection = engine.connect()  # LEAK
    kept.append(connection)


def test_connection_dropped_in_a_cycle(engine: Engine) -> None:
    connection = engine.connect()  # LEAK
    connection.execute(text("SELECT 1"))


def test_connection_dropped_at_once(engine: Engine) -> None:
    engine.connect()  # LEAK


def test_connection_collected_before_the_end(engine: Engine) -> None:
    connection = engine.connect()  # LEAK
    connection.execute(text("SELECT 1"))
    del connection
    gc.collect()


def test_connection_detached(engine: Engine) -> None:
    connection = engine.connect()  # LEAK
    connection.detach()
    kept.append(connection)


def ship(session: Session) -> None:
    session.add(Order(number=1))
    with session.no_autoflush:
        session.execute(text("SELECT 1"))  # LEAK


def test_session_kept(engine: Engine) -> None:
    session = Session(engine)
    kept.append(session)
    ship(session)


def test_scoped_session_not_removed(engine: Engine) -> None:
    sessions = scoped_session(sessionmaker(engine))
    kept.append(sessions)
    sessions.execute(text("SELECT 1"))  # LEAK


def test_error_path_skips_the_close(engine: Engine) -> None:
    def work() -> None:
        connection = engine.connect()  # LEAK
        connection.execute(text("SELECT 1"))
        raise ValueError("before the close")

    try:
        work()
    except ValueError as error:
        kept.append(error)


def test_raises_keeps_the_frame(engine: Engine) -> None:
    def work() -> None:
        connection = engine.connect()  # LEAK
        connection.execute(text("SELECT 1"))
        raise ValueError("before the close")

    with pytest.raises(ValueError, match="before") as raised:
        work()
    kept.append(raised)


def test_thread_still_holds(engine: Engine) -> None:
    held = threading.Event()

    def work() -> None:
        with engine.connect():  # LEAK
            held.set()
            ended.wait(60)

    threading.Thread(target=work, name="shipper", daemon=True).start()
    assert held.wait(10)


def test_thread_ended_holding(engine: Engine) -> None:
    def work() -> None:
        kept.append(engine.connect())  # LEAK

    thread = threading.Thread(target=work, name="shipper")
    thread.start()
    thread.join()


def test_engine_not_disposed() -> None:
    engine = create_engine(os.environ["DATABASE_URL"])  # LEAK
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))


def test_engine_kept() -> None:
    engine = create_engine(os.environ["DATABASE_URL"])  # LEAK
    kept.append(engine)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))


@pytest.fixture
def forgetful(engine: Engine) -> Connection:
    return engine.connect()  # LEAK


def test_fixture_that_never_closes(forgetful: Connection) -> None:
    forgetful.execute(text("SELECT 1"))


@pytest.mark.parametrize("is_good", [True, False])
def test_parameters(engine: Engine, is_good: bool) -> None:
    connection = engine.connect()  # LEAK
    kept.append(connection)
    if is_good:
        connection.close()


class TestOldStyle(unittest.TestCase):
    session: Session

    def setUp(self) -> None:
        self.engine = create_engine(os.environ["DATABASE_URL"])
        self.addCleanup(self.engine.dispose)
        self.session = Session(self.engine)
        kept.append(self.session)

    def test_unittest(self) -> None:
        self.session.execute(text("SELECT 1"))  # LEAK


@pytest.fixture(scope="module")
def forgetful_module(engine: Engine) -> Connection:
    return engine.connect()  # LEAK


def test_first_user_of_the_module_fixture(forgetful_module: Connection) -> None:
    forgetful_module.execute(text("SELECT 1"))


def test_last_user_of_the_module_fixture(forgetful_module: Connection) -> None:
    forgetful_module.execute(text("SELECT 1"))
