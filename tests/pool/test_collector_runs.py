"""The garbage collector may enter a listener at any allocation, in any thread: nothing locks up, nothing is lost."""

from __future__ import annotations

import gc
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

from pgleak.pool import api
from pgleak.pool.collector import PoolCollector
from pool_support import Truth, counts, new_name, pool_of, url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.demo.embedded import EmbeddedPostgres


@pytest.fixture
def collecting_always() -> Iterator[None]:
    """A collection at (nearly) every allocation of a container."""
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*before)


@pytest.mark.timeout(90)
@pytest.mark.usefixtures("collecting_always")
def test_leaks_collected_at_any_allocation_while_metrics_are_written_and_read(
    postgres16: EmbeddedPostgres, truth: Truth
) -> None:
    name = new_name()
    engine = create_engine(url(postgres16), poolclass=QueuePool, pool_size=3, max_overflow=5, pool_timeout=20)
    api.instrument(engine, name=name)
    registry = CollectorRegistry()
    registry.register(PoolCollector())
    served = Counter("served", "Requests.", registry=registry)
    took = Histogram("took", "Seconds.", registry=registry)
    rounds = 60
    failures: list[BaseException] = []

    def application() -> None:
        try:
            for number in range(rounds):
                connection = engine.raw_connection()
                if number % 2:
                    connection.close()
                else:
                    leaked: list[Any] = [connection]
                    leaked.append(leaked)  # only the collector can return it
                    del leaked
                del connection
                served.inc()
                took.observe(number / 1000)
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            failures.append(error)

    def scraper() -> None:
        try:
            for _ in range(rounds // 3):
                generate_latest(registry)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=application, daemon=True) for _ in range(3)]
    threads += [threading.Thread(target=scraper, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not [thread for thread in threads if thread.is_alive()], "locked up"
    assert failures == []
    gc.collect()
    truth.agrees(name)
    assert counts(name).used == 0
    counters = pool_of(name).counters
    assert counters.checkouts == counters.use.count == 3 * rounds
    assert sum(counters.returned_by_gc.values()) == 3 * rounds / 2
    engine.dispose()


@pytest.mark.timeout(90)
def test_a_leak_collected_in_the_midst_of_our_own_code(postgres16: EmbeddedPostgres) -> None:
    """A collection forced at each line of pgleak's that runs, with a leaked connection waiting for it each time."""
    name = new_name()
    engine = create_engine(url(postgres16), pool_size=2, max_overflow=20)
    api.instrument(engine, name=name)
    leaked = 0
    busy = False

    def leak() -> None:
        nonlocal leaked
        cycle: list[Any] = [engine.raw_connection()]
        cycle.append(cycle)
        leaked += 1

    def trace(frame: Any, kind: str, _argument: Any) -> Any:
        nonlocal busy
        if kind == "call":
            return trace if "/pgleak/pool/" in frame.f_code.co_filename.replace("\\", "/") else None
        if kind == "line" and not busy:
            busy = True
            try:
                leak()
                gc.collect(0)
            finally:
                busy = False
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in range(3):
            engine.raw_connection().close()
            api.snapshot()
    finally:
        sys.settrace(before)
    gc.collect()
    assert leaked > 50
    assert counts(name).used == 0
    counters = pool_of(name).counters
    assert counters.checkouts == counters.use.count == leaked + 3
    assert sum(counters.returned_by_gc.values()) == leaked
    engine.dispose()
