"""Snapshots go to bytes and come back the same; what is no snapshot is refused, whatever it is."""

from __future__ import annotations

import math
import random
import struct
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine

from pgleak.pool import api
from pgleak.pool.collector import families
from pgleak.pool.decoding import MalformedSnapshotError, OtherVersionError, decode
from pgleak.pool.encoding import VERSION, encode
from pgleak.pool.marks import context, expected_hold
from pgleak.pool.snapshot import (
    USE_BOUNDS,
    Histogram,
    Owner,
    PoolCounters,
    ProcessSnapshot,
    SiteStatistics,
)
from pool_support import new_name, url

if TYPE_CHECKING:
    from pgleak.demo.embedded import EmbeddedPostgres


@pytest.fixture
def full(postgres16: EmbeddedPostgres) -> ProcessSnapshot:
    """A real one, with something in each field."""
    name = new_name()
    engine = create_engine(url(postgres16), max_overflow=-1)
    api.instrument(engine, name=name)
    with expected_hold("report", max_seconds=900), context("GET /"):
        held, left = engine.connect(), engine.connect()
    engine.connect().close()
    engine.dispose()
    engine.connect().close()
    snapshot = api.snapshot()
    held.close()
    left.close()
    engine.dispose()
    (pool,) = snapshot.pools
    counters = replace(pool.counters, suspects={"a:b": 1}, suspects_returned={"a:b": 0}, returned_by_gc={"c:d": 2})
    return replace(
        snapshot, errors=3, pools=(replace(pool, counters=counters, sites={"a:b": SiteStatistics(20, 0.5)}),)
    )


def test_there_and_back_again(full: ProcessSnapshot) -> None:
    assert full.pools[0].connections_max == math.inf
    assert full.pools[0].checkouts[0].place == "orphaned"
    assert full.pools[0].counters.checkouts == 4
    assert decode(encode(full)) == full


def test_text_that_cannot_be_written_is_written_otherwise(full: ProcessSnapshot) -> None:
    """Names of threads and contexts come from the application."""
    held = replace(
        full.pools[0].checkouts[0], context="a\0b", owner=Owner("thread", "half \ud83d", "dead", 7.5, runs_jobs=True)
    )
    written = decode(encode(replace(full, pools=(replace(full.pools[0], checkouts=(held,)),)))).pools[0].checkouts[0]
    assert (written.context, written.owner) == ("a\ufffdb", Owner("thread", "half ?", "dead", 7.5, runs_jobs=True))


@pytest.mark.parametrize("other", [b"", b"{}", b"\0" * 23, b"\0" * 24, b"\xff" * 1000, b'[1,["x"],[],[]]' * 10])
def test_something_else_is_refused(other: bytes) -> None:
    with pytest.raises(MalformedSnapshotError):
        decode(other)


def test_another_version_is_called_so(full: ProcessSnapshot) -> None:
    data = encode(full)
    with pytest.raises(OtherVersionError):
        decode(struct.pack("=I", VERSION + 1) + data[4:])


def test_a_damaged_snapshot_is_refused_or_another_snapshot(full: ProcessSnapshot) -> None:
    """Whatever is put in whatever place: never another exception, and what is accepted can be shown."""
    choose = random.Random(1)
    whole = encode(full)
    refusals = [_refusal(_damaged(whole, choose)) for _ in range(3000)]
    assert 500 < len([each for each in refusals if each]) < 3000
    assert not [each for each in refusals if "127.0.0.1" in each]


def _refusal(data: bytes) -> str:
    """Why it is refused, "" when it is not."""
    try:
        found = decode(data)
    except MalformedSnapshotError as error:
        return str(error)
    list(families([found]))
    return ""


def _damaged(data: bytes, choose: random.Random) -> bytes:
    """Eight bytes replaced, wherever they begin; or some left out; or some twice."""
    at, size = choose.randrange(len(data)), choose.choice([1, 4, 8, 64])
    values = [-1, 0, 1, 2**31, -(2**63), 2**63 - 1, choose.randrange(100)]
    numbers = [math.nan, math.inf, -1.0, 1e308]
    middle = choose.choice([
        struct.pack("=q", choose.choice(values)), struct.pack("=d", choose.choice(numbers)), choose.randbytes(8),
        b"", data[at : at + size] * 2,
    ])  # fmt: skip
    return data[:at] + middle + data[at + (8 if len(middle) == 8 else size) :]


def test_counters_add_up() -> None:
    one = PoolCounters(checkouts=1, closed={"returned": 1}, use=Histogram.of(USE_BOUNDS, [0.001, 400]))
    two = PoolCounters(checkouts=2, closed={"returned": 1, "disposed": 1}, use=Histogram.of(USE_BOUNDS, [0.0011]))
    both = one.plus(two)
    assert (both.checkouts, both.closed) == (3, {"returned": 2, "disposed": 1})
    assert both.use.counts[:2] == (1, 1)
    assert both.use.counts[-1] == 1
    assert both.use.sum == pytest.approx(400.0021)
    with pytest.raises(ValueError, match="different buckets"):
        one.use.plus(Histogram.of((1.0,)))


def test_decoding_is_quick(full: ProcessSnapshot) -> None:
    """64 workers' snapshots, beside merely making their checkouts anew."""
    data = [encode(full)] * 64
    (pool,) = full.pools
    best = min(_timed(lambda: [decode(each) for each in data]) for _ in range(9))
    reference = min(_timed(lambda: [[replace(each) for each in pool.checkouts] for _ in data]) for _ in range(9))
    assert best < 40 * reference


def _timed(work: Any) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began
