"""A fork starts a clean ledger; what the parent opened is the parent's."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import threading
import traceback
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine

import servers
from pgleak import variables
from pgleak.pool import api, ledger, statefile
from pgleak.pool.monitor import Reporter
from pgleak.pool.snapshot import Limits
from pgleak.pool.suspects import judge
from pool_support import Counts, counts, new_name, pool_of, url

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pgleak.demo.embedded import EmbeddedPostgres

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    # Python 3.12 and later warn of any fork while there are threads, the monitor's among them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def in_child(story: Callable[[], None]) -> None:
    """Run the story in a forked child; fail where it fails."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            story()
            status = 0
        except BaseException:  # noqa: BLE001 - the child must never go on as a second test runner
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_the_child_begins_with_nothing_and_counts_its_own(postgres16: EmbeddedPostgres) -> None:
    name = new_name()
    engine = create_engine(url(postgres16))
    api.instrument(engine, name=name)
    held = engine.connect()
    engine.connect().close()
    parent = api.snapshot().process

    def child() -> None:
        assert counts(name) == Counts()
        counters = pool_of(name).counters
        assert (counters.checkouts, counters.opened, counters.use.count) == (0, 0, 0)
        assert api.snapshot().process.pid == os.getpid() != parent.pid
        engine.dispose(close=False)
        with engine.connect():
            assert counts(name) == Counts(used=1)
        assert counts(name) == Counts(idle=1)
        assert pool_of(name).counters.checkouts == 1

    in_child(child)
    assert counts(name) == Counts(idle=1, used=1)
    assert pool_of(name).counters.checkouts == 2
    assert api.snapshot().process == parent
    held.close()
    engine.dispose()


def test_using_the_parents_connection_is_a_suspect_for_as_long_as_it_is_there(postgres16: EmbeddedPostgres) -> None:
    """Two processes that speak over one connection garble each other's answers, be it for a moment between two looks."""
    name = new_name()
    engine = create_engine(url(postgres16))
    api.instrument(engine, name=name)
    engine.connect().close()

    def child() -> None:
        connection = engine.connect()
        assert counts(name) == Counts(inherited=1)
        (verdict,) = judge(api.snapshot())
        assert verdict.cause == "inherited"
        assert verdict.checkout.frames[0].file == __file__
        connection.close()
        del connection
        for _ in range(3):
            engine.connect().close()
        assert counts(name) == Counts(inherited=1)
        (again,) = judge(api.snapshot())
        assert again.checkout.number == verdict.checkout.number
        reporter = Reporter(ledger.LEDGER)
        reporter.report(api.snapshot())
        engine.dispose(close=False)  # the old pool is there until the collector comes by
        assert counts(name) == Counts()
        reporter.report(api.snapshot())
        counters = pool_of(name).counters
        assert list(counters.suspects.values()) == [1]
        assert list(counters.suspects_returned.values()) == [0]

    in_child(child)
    assert counts(name) == Counts(idle=1)
    engine.dispose()


def test_a_daemon_whose_parent_has_ended_has_its_connection_alone(postgres16: EmbeddedPostgres) -> None:
    name = new_name()
    engine = create_engine(url(postgres16))
    api.instrument(engine, name=name)
    engine.connect().close()
    ended = subprocess.run(["/bin/sh", "-c", "echo $$"], capture_output=True, check=True).stdout

    def child() -> None:
        engine.connect().close()
        assert counts(name) == Counts(inherited=1)
        for connection in ledger.LEDGER.pools[name].connections.values():
            connection.inherited = int(ended)
        assert counts(name) == Counts(idle=1)
        assert judge(api.snapshot()) == ()

    in_child(child)
    engine.dispose()


def test_the_child_watches_its_suspects_on_a_thread_of_its_own(postgres16: EmbeddedPostgres) -> None:
    name = new_name()
    engine = create_engine(url(postgres16))
    api.instrument(engine, name=name)
    engine.connect().close()
    servers.wait_until(lambda: _monitors() == 1)

    def child() -> None:
        seen: list[str] = []
        api.instrument(engine, limits=Limits(unproven_site=0.1), on_suspect=lambda verdict: seen.append(verdict.cause))
        assert _monitors() == 0
        engine.dispose(close=False)
        held = engine.connect()
        servers.wait_until(lambda: seen == ["overdue"])
        held.close()

    in_child(child)
    engine.dispose()


def test_a_fork_in_the_midst_of_a_report_leaves_no_lock_behind(
    postgres16: EmbeddedPostgres, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a thread of the parent's holds at the moment of a fork stays held in the child for ever."""
    monkeypatch.setenv(variables.DIR, str(folder))
    engine = create_engine(url(postgres16))
    api.instrument(engine)
    engine.connect().close()
    reporter = statefile._reporters[os.getpid()]
    locks = [reporter._ended._cond, reporter._writing, reporter._claim, api._state.lock, api.MONITOR._starting]  # type: ignore[attr-defined]
    locks.append(api.MONITOR._stop._cond)  # type: ignore[attr-defined]
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            for lock in locks:
                if lock is not reporter._claim:  # which is held already, for good
                    stack.enter_context(lock)
            held.set()
            forked.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        # it stays there to be waited for, so that its number is nobody else's before it is killed
        servers.wait_until(lambda: os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
    finally:
        forked.set()
        thread.join()
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    assert status == 0
    engine.dispose()


def _monitors() -> int:
    return sum(thread.name == "pgleak-monitor" for thread in threading.enumerate())


def test_multiprocessing(postgres16: EmbeddedPostgres) -> None:
    engine = create_engine(url(postgres16))
    api.instrument(engine, name="child")
    engine.connect().close()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def work() -> None:
        own = create_engine(url(postgres16))
        api.instrument(own, name="child")
        with own.connect():
            queue.put((counts("child"), pool_of("child").counters.checkouts))
        own.dispose()

    process = context.Process(target=work)
    process.start()
    assert queue.get() == (Counts(used=1), 1)
    process.join(20)
    assert process.exitcode == 0
    assert counts("child") == Counts(idle=1)
    engine.dispose()
