"""Snapshots go to JSON and come back the same; what is no snapshot is refused, whatever it is."""

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine

from pgleak.pool import api
from pgleak.pool.encoding import MalformedSnapshotError, decode, encode
from pgleak.pool.marks import context, expected_hold
from pgleak.pool.snapshot import (
    USE_BOUNDS,
    Histogram,
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
    once = decode(json.loads(json.dumps(encode(full), allow_nan=False)))
    assert decode(json.loads(json.dumps(encode(once), allow_nan=False))) == once
    assert abs(once.taken - full.taken) < 0.001, "times may be rounded"
    assert once.pools[0].counters.checkouts == full.pools[0].counters.checkouts == 4
    assert [checkout.frames for checkout in once.pools[0].checkouts] == [
        checkout.frames for checkout in full.pools[0].checkouts
    ]
    assert [checkout.expected for checkout in once.pools[0].checkouts] == [
        checkout.expected for checkout in full.pools[0].checkouts
    ]


@pytest.mark.parametrize("other", [None, 1, [], {}, "x", [1], [2, []], [1, []], [1, [[]]], [1, None], [True, []]])
def test_something_else_is_refused(other: Any) -> None:
    with pytest.raises(MalformedSnapshotError):
        decode(other)


def test_a_damaged_snapshot_is_refused_or_another_snapshot(full: ProcessSnapshot) -> None:
    """Whatever is put in whatever place: never another exception."""
    choose = random.Random(1)
    refused = 0
    messages: set[str] = set()
    for _ in range(2000):
        plain = json.loads(json.dumps(encode(full)))
        _damage(plain, choose)
        try:
            assert isinstance(decode(plain), ProcessSnapshot)
        except MalformedSnapshotError as error:
            refused += 1
            messages.add(str(error))
    assert refused > 500
    assert not [message for message in messages if "127.0.0.1" in message]


def _damage(plain: Any, choose: random.Random) -> None:
    while True:
        index = choose.choice(list(plain)) if isinstance(plain, dict) else choose.randrange(len(plain))
        if isinstance(plain[index], (list, dict)) and plain[index] and choose.random() < 0.8:
            plain = plain[index]
            continue
        plain[index] = choose.choice(
            [None, -1, 1.5, "x", "inf", [], {}, [1], {"a": 1}, True, 1e400, {"a": "b"}, 10**400]
        )
        return


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
    """64 workers' snapshots are decoded well within the 20 ms that a merge may take."""
    texts = [json.dumps(encode(full))] * 64
    best = min(_timed(lambda: [decode(json.loads(text)) for text in texts]) for _ in range(5))
    reference = min(_timed(lambda: [json.loads(text) for text in texts]) for _ in range(5))
    assert best < 12 * reference


def _timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
