"""Whatever goes wrong in pgleak, the application does not notice."""

from __future__ import annotations

import ast
import gc
import sys
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.pool import Pool

from pgleak.pool import api, checkouts, connection, events, ledger, monitor, naming, sites
from pgleak.pool.marks import MARKS
from pool_support import Counts, counts, new_name, pool_of, url

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from sqlalchemy.engine import Engine

    from pgleak.demo.embedded import EmbeddedPostgres


class InjectedError(Exception):
    pass


class Injector:
    """Raises at the n-th line of pgleak's own code that runs, wherever that is, once."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.hit: tuple[str, int] | None = None

    def __enter__(self) -> None:
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, kind: str, _argument: Any) -> Any:
        if kind != "call" or frame.f_code.co_filename not in OURS:
            return None
        return self._line

    def _line(self, frame: FrameType, kind: str, _argument: Any) -> Any:
        if kind == "line" and (frame.f_code.co_filename, frame.f_lineno) not in UNPROTECTED:
            self.left -= 1
            if self.left == 0:
                self.hit = (frame.f_code.co_filename, frame.f_lineno)
                raise InjectedError(f"{frame.f_code.co_name}:{frame.f_lineno}")
        return self._line


OURS = {module.__file__ for name, module in list(sys.modules.items()) if name.startswith("pgleak.pool.")}
#: The lines of a wrapper outside of its `try`: a few loads, stores and `+= 1`, none of which can fail.
UNPROTECTED: set[tuple[str | None, int]] = set()


def _lines(body: list[ast.stmt]) -> range:
    return range(body[0].lineno, (body[-1].end_lineno or 0) + 1)


def _unprotected() -> None:
    """Lines before, at and in the handler of a `try`. A listener has nothing else outside."""
    for module in (checkouts, connection, events, ledger, monitor, naming):
        file = str(module.__file__)
        for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Try):
                UNPROTECTED.add((file, node.lineno))
                UNPROTECTED.update((file, each.lineno) for each in node.finalbody)
                for handler in node.handlers:
                    UNPROTECTED.update(
                        (file, number) for number in range(handler.lineno, (handler.end_lineno or 0) + 1)
                    )
            if module is naming and isinstance(node, ast.FunctionDef) and node.name == "connect":
                tried = {line for each in ast.walk(node) if isinstance(each, ast.Try) for line in _lines(each.body)}
                UNPROTECTED.update((file, number) for number in set(_lines(node.body)) - tried)
            elif isinstance(node, ast.FunctionDef) and any(isinstance(each, ast.Try) for each in node.body):
                for each in node.body:
                    if not isinstance(each, ast.Try) or ast.unparse(each.body[0]) == "proxy = fairy._checkout(self)":
                        UNPROTECTED.update((file, number) for number in range(each.lineno, (each.end_lineno or 0) + 1))


_unprotected()


def _everyday(engine: Engine) -> None:
    """Each of SQLAlchemy's events at least once."""
    first, second, third = engine.raw_connection(), engine.raw_connection(), engine.raw_connection()
    with pytest.raises(PoolTimeoutError):
        engine.raw_connection()
    first.invalidate(soft=True)
    first.close()
    second.invalidate()
    third.detach()
    third.close()
    dropped = engine.raw_connection()
    del dropped
    with Session(engine) as session:
        assert session.execute(text("select 1")).scalar() == 1
    engine.dispose()
    with engine.connect() as connection:
        assert connection.execute(text("select 2")).scalar() == 2


def test_an_exception_at_any_line_of_ours_never_reaches_the_application(postgres16: EmbeddedPostgres) -> None:
    """Raised at the first line that runs, then at the second, and so on until none is left. The pool keeps working."""
    engine = create_engine(url(postgres16), pool_size=2, max_overflow=1, pool_timeout=0.01)
    errors = 0
    reached: set[tuple[str, int]] = set()
    at = 0
    while True:
        at += 1
        api.instrument(engine, name="injected")
        tracing = sys.gettrace()
        injector = Injector(at)
        with injector:
            _everyday(engine)
        sys.settrace(tracing)
        errors += api.snapshot().errors
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        api.uninstrument(engine)
        if injector.hit is None:
            break
        reached.add(injector.hit)
        at += at // 20  # every line early on, where the hot path is; later, and again, a sample
    assert errors > 20
    api.LEDGER.errors = 0
    assert {file.rpartition("/")[2] for file, _ in reached} >= {"checkouts.py", "events.py", "ledger.py", "origin.py"}
    engine.dispose()
    _everyday(engine)
    engine.dispose()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (checkouts, "capture"),
        (checkouts, "monotonic"),
        (checkouts, "ref"),
        (ledger, "bisect_left"),
        (sites, "bisect_left"),
        (connection, "monotonic"),
        (ledger, "facts"),
        (ledger, "ref"),
    ],
)
def test_a_broken_part_is_counted_and_nothing_else(
    postgres16: EmbeddedPostgres, module: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_engine(url(postgres16), pool_size=2, max_overflow=1, pool_timeout=0.01)
    api.instrument(engine, name="broken")

    def broken(*_: Any) -> Any:
        raise InjectedError(name)

    monkeypatch.setattr(module, name, broken)
    for _ in range(20):
        _everyday(engine)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    monkeypatch.undo()
    assert api.snapshot().errors > 0
    api.uninstrument()
    api.LEDGER.errors = 0
    engine.dispose()


def test_an_exception_of_the_users_own_listener_is_the_users(postgres16: EmbeddedPostgres) -> None:
    """It discards the connection, as without pgleak; the ledger does not keep it."""
    name = new_name()
    engine = create_engine(url(postgres16))
    api.instrument(engine, name=name)

    def refuse(*_: Any) -> None:
        raise InjectedError("no")

    event.listen(engine, "checkout", refuse)
    with pytest.raises(InjectedError):
        engine.connect()
    assert counts(name) == Counts()
    assert pool_of(name).pending == 0
    event.remove(engine, "checkout", refuse)
    with engine.connect():
        assert counts(name) == Counts(used=1)
    engine.dispose()


def test_a_method_that_somebody_replaced_is_called_all_the_same(
    postgres16: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where SQLAlchemy's own stand in the pool is their one call made for them."""
    calls = []

    def replace(name: str) -> None:
        original = getattr(Pool, name)

        def replacement(self: Pool, *arguments: Any) -> Any:
            calls.append(name)
            return original(self, *arguments)

        monkeypatch.setattr(Pool, name, replacement)

    replace("connect")
    replace("_return_conn")
    name = new_name()
    engine = create_engine(url(postgres16))
    api.instrument(engine, name=name)
    engine.connect().close()
    assert calls == ["connect", "_return_conn"]
    counters = pool_of(name).counters
    assert counters.checkouts == counters.use.count == 1
    api.uninstrument()
    engine.dispose()


def test_nothing_of_the_application_is_kept_alive(postgres16: EmbeddedPostgres) -> None:
    """Engine, session, connection, and a local variable of the frame that checked out: all die as without pgleak."""

    class Local:
        pass

    def use(engine: Engine) -> list[weakref.ref[Any]]:
        local = Local()
        session = Session(engine)
        session.execute(text("select 1"))
        connection = engine.connect()
        references = [weakref.ref(each) for each in (local, session, connection, connection.connection)]
        connection.close()
        session.close()
        return references

    engine = create_engine(url(postgres16))
    api.instrument(engine, name="mortal")
    references = use(engine)
    api.snapshot()
    pool = weakref.ref(engine.pool)
    references.append(weakref.ref(engine))
    engine.dispose()
    del engine
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)
    assert pool() is None


def test_engines_made_over_and_over_leave_nothing(postgres16: EmbeddedPostgres) -> None:
    api.instrument()

    def once() -> None:
        engine = create_engine(url(postgres16))
        engine.connect().close()
        engine.dispose()

    def watched() -> tuple[int, int, int]:
        gc.collect()
        pools = list(api.LEDGER.pools.values())
        return (
            sum(len(pool.engines) for pool in pools),
            sum(len(pool.connections) for pool in pools),
            len(checkouts._marked),
        )

    before = watched()  # engines that other tests left to the collector may be among them
    for _ in range(30):
        once()
    assert all(now <= then for now, then in zip(watched(), before, strict=True))


def test_a_million_sites_do_not_fill_the_memory(postgres16: EmbeddedPostgres) -> None:
    """Code compiled as the program runs is counted under (other) beyond a cap."""
    engine = create_engine(url(postgres16))
    api.instrument(engine, name="compiled")
    for number in range(ledger._SITES + 50):
        exec(
            compile("engine.raw_connection().close()", f"<generated {number}>", "exec"),
            {"engine": engine, "__name__": "x"},
        )
    pool = api.LEDGER.pools["compiled"]
    assert len(pool.sites) == ledger._SITES
    assert pool.other.checkouts == 50
    assert pool_of("compiled").counters.checkouts == ledger._SITES + 50
    engine.dispose()


def test_counts_are_exact_under_threads(postgres16: EmbeddedPostgres) -> None:
    """Additions without a lock, and none is lost."""
    name = new_name()
    engine = create_engine(url(postgres16), pool_size=4)
    api.instrument(engine, name=name)

    def work() -> None:
        for _ in range(500):
            engine.raw_connection().close()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        _in_threads(8, work)
    finally:
        sys.setswitchinterval(interval)
    counters = pool_of(name).counters
    assert counters.checkouts == counters.use.count == 4000
    assert pool_of(name).pending == 0
    engine.dispose()


def _in_threads(number: int, work: Callable[[], Any]) -> None:
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_look_while_the_pools_are_at_work(postgres16: EmbeddedPostgres) -> None:
    engine = create_engine(url(postgres16), pool_size=4)
    api.instrument(engine)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            engine.raw_connection().close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        api.snapshot()
    stop.set()
    for thread in threads:
        thread.join()
    assert MARKS.get().context == ""
    engine.dispose()
