"""Each suspect is told of once, with its line; so is its return; and the log is never flooded."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine

import servers
from pgleak.pool import api
from pgleak.pool.ledger import Ledger
from pgleak.pool.monitor import Monitor, Reporter
from pgleak.pool.snapshot import Limits
from pgleak.pool.survey import survey
from pool_support import new_name, pool_of, url

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.pool.suspects import Verdict


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def survey(self) -> Any:
        import time

        return survey(
            api.LEDGER,
            monotonic_clock=lambda: time.monotonic() + self.ahead,
            wall_clock=lambda: time.time() + self.ahead,
        )


def test_one_line_per_suspect_and_one_when_it_comes_back(
    postgres16: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    name = new_name()
    engine = create_engine(url(postgres16))
    api.instrument(engine, name=name)
    reporter, clock = Reporter(api.LEDGER), Clock()
    seen: list[Verdict] = []
    reporter.on_suspect = seen.append
    connection = engine.connect()
    reporter.report(clock.survey())
    assert caplog.messages == []
    clock.ahead = 61
    with caplog.at_level(logging.INFO, "pgleak.pool"):
        for _ in range(3):
            reporter.report(clock.survey())
        (line,) = caplog.messages
        assert line.startswith("connection held for 61 s (limit 60 s, overdue), ")
        for part in (
            f"pool={name}",
            f"site={__name__}:",
            f"({__file__}:",
            "thread='MainThread' (alive)",
            "now at ",
            "backend=",
        ):
            assert part in line
        assert [verdict.cause for verdict in seen] == ["overdue"]
        connection.close()
        reporter.report(clock.survey())
        assert caplog.messages[1].startswith("connection was returned after 6")
        assert line[line.index("backend=") :].partition(",")[0] in caplog.messages[1]
    (site,) = pool_of(name).counters.suspects
    assert pool_of(name).counters.suspects[site] == pool_of(name).counters.suspects_returned[site] == 1
    engine.dispose()


def test_a_suspect_that_the_collector_returns_was_no_false_alarm(postgres16: EmbeddedPostgres) -> None:
    name = new_name()
    engine = create_engine(url(postgres16))
    api.instrument(engine, name=name)
    reporter, clock = Reporter(api.LEDGER), Clock()
    connection = engine.raw_connection()
    clock.ahead = 61
    reporter.report(clock.survey())
    del connection
    gc.collect()
    reporter.report(clock.survey())
    counters = pool_of(name).counters
    assert list(counters.suspects.values()) == [1]
    assert list(counters.suspects_returned.values()) == [0]
    engine.dispose()


def test_the_log_is_not_flooded(postgres16: EmbeddedPostgres, caplog: pytest.LogCaptureFixture) -> None:
    engine = create_engine(url(postgres16), pool_size=0)
    api.instrument(engine, name="flood")
    now = 0.0
    reporter, clock = Reporter(api.LEDGER, clock=lambda: now), Clock()
    clock.ahead = 61
    held = [engine.connect() for _ in range(25)]
    reporter.report(clock.survey())
    assert len(caplog.messages) == 20
    now = 61
    held.append(engine.connect())
    reporter.report(clock.survey())
    assert caplog.messages[-1].endswith("(5 earlier messages were left out)")
    assert sum(pool_of("flood").counters.suspects.values()) == 26
    held += [engine.connect() for _ in range(25)]
    held.append(_rare(engine))
    reporter.report(clock.survey())
    assert sum("_rare" in message for message in caplog.messages) == 1
    assert len(caplog.messages) <= 20 + 20 + 1
    for connection in held:
        connection.close()
    engine.dispose()


def _rare(engine: Engine) -> Connection:
    """Its line is said, however noisy another one is."""
    return engine.connect()


@pytest.mark.parametrize("error", [RuntimeError("the pager is down"), SystemExit(1), KeyboardInterrupt()])
def test_a_callback_that_fails_is_logged_and_forgotten(
    postgres16: EmbeddedPostgres, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    engine = create_engine(url(postgres16))
    api.instrument(engine, name="callback")
    reporter, clock = Reporter(api.LEDGER), Clock()

    def fail(_: Verdict) -> None:
        raise error

    reporter.on_suspect = fail
    clock.ahead = 61
    with engine.connect():
        reporter.report(clock.survey())
    assert caplog.messages[-1] == "the on_suspect callback failed"
    assert api.LEDGER.errors == 1
    api.LEDGER.errors = 0
    engine.dispose()


def test_the_thread_begins_with_the_first_connection_and_ends_with_the_last_engine(
    postgres16: EmbeddedPostgres,
) -> None:
    seen: list[Verdict] = []
    engine = create_engine(url(postgres16))
    api.instrument(engine, limits=Limits(unproven_site=0.1), on_suspect=seen.append)
    assert _monitors() == []
    held = engine.connect()
    (thread,) = _monitors()
    assert thread.daemon
    servers.wait_until(lambda: seen)
    assert (seen[0].cause, seen[0].checkout.frames[0].file) == ("overdue", __file__)
    held.close()
    api.uninstrument()
    assert _monitors() == []
    engine.dispose()


def _monitors() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pgleak-monitor"]


def test_what_dispose_left_behind_is_named_by_its_last_user(
    postgres16: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody holds it any more, so there is no checkout to name; it was returned into a pool that nobody uses."""
    engine = create_engine(url(postgres16))
    api.instrument(engine, name="disposed")
    held, old_pool = engine.connect(), engine.pool
    line = sys._getframe().f_lineno - 1
    engine.dispose()
    held.close()
    (orphan,) = pool_of("disposed").orphans
    (frames,) = pool_of("disposed").orphaned_at
    assert (frames[0].file, frames[0].line) == (__file__, line)
    reporter = Reporter(api.LEDGER)
    for _ in range(4):
        reporter.report(api.snapshot())
    (message,) = caplog.messages
    assert f"last used at site={frames[0].site} ({__file__}:{line}), backend={orphan.pid}" in message
    del old_pool
    gc.collect()
    assert pool_of("disposed").orphans == ()


def test_other_work_on_the_same_thread() -> None:
    ledger = Ledger()
    monitor = Monitor(ledger, tick=0.01)
    done: list[str] = []

    def fails() -> None:
        done.append("failed")
        raise RuntimeError("again")

    def works() -> None:
        done.append("worked")

    monitor.every(0.02, fails)
    monitor.every(0.02, works)
    monitor.start()
    monitor.start()
    servers.wait_until(lambda: done.count("worked") > 2)
    monitor.forget(works)
    monitor.stop()
    assert ledger.errors == done.count("failed") > 2
