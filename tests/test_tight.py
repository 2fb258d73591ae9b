"""Of pools that have none left: whether they are too small, or all that they have is leaked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmarks.made import checkout, process, stack

from pgleak.holders.join import Join
from pgleak.pool.reading import Reading, Reported
from pgleak.pool.snapshot import Backend, Owner, PoolCounters, ProcessSnapshot
from pgleak.web.overview import sections
from pgleak.who.diagnosis import diagnose
from pgleak.who.history import Overview
from pgleak.who.report import Report, report
from pgleak.who.room import ServerState
from pgleak.who.table import table
from pgleak.who.words import tell

NOW = 1_800_000_000.0
ADDRESS = "db1:5432"


def worker(
    pid: int,
    leaked: int,
    *,
    others: int = 0,
    age: float = 0.1,
    most: float = 15.0,
    engines: int = 1,
    timeouts: int = 1,
    pending: int = 1,
) -> ProcessSnapshot:
    """A process with a pool of which its threads have ended with some connections, the last 42 s ago; others live."""
    ages = [42.0 + number if number < leaked else age for number in range(leaked + others)]
    backends = [Backend(pid + number, NOW - 100, f"{ADDRESS}/shop") for number in range(len(ages))]
    held = [
        checkout(one.pid or 0, one, NOW, old, stack("jobs", "web")) for one, old in zip(backends, ages, strict=True)
    ]
    dead = [replace(each, owner=Owner("thread", "worker", "dead", each.age)) for each in held[:leaked]]
    made = process(pid, NOW, [*dead, *held[leaked:]])
    pool = replace(
        made.pools[0], connections_max=most, engines=engines, pending=pending, counters=PoolCounters(timeouts=timeouts)
    )
    return replace(made, pools=(pool,))


def looked(*workers: ProcessSnapshot) -> Report:
    """As `pgleak who` does at the processes alone, among ten others that have room."""
    others = [worker(100 * number, 0, others=1, timeouts=0, pending=0) for number in range(1, 11)]
    folder = Reading(tuple(Reported(each, 0.0) for each in (*workers, *others)))
    seen = report(NOW, [], {}, folder, Join())
    return replace(seen, servers=(ServerState(ADDRESS, ADDRESS, used=30, usable=97),))


def words(seen: Report) -> str:
    return " ".join(" ".join(tell(seen, diagnose(seen))).split())


def test_a_pool_of_which_all_is_leaked_is_not_called_too_small() -> None:
    seen = looked(worker(14324, 15))
    assert (
        "Note: shop: process 14324: all 15 connections of its pool are leaked, 1 request waits in vain, 1 gave up so far"
        in words(seen)
    )
    assert "too small" not in words(seen)


def test_that_there_are_no_new_ones_is_no_relief_where_none_is_left() -> None:
    seen, healthier = looked(worker(14324, 15)), looked(worker(14324, 14, timeouts=0, pending=0))
    told = "no new ones, a pool has none left"
    assert f"{told}: the last 42 s ago" in words(seen)
    assert f"{told}: the last 42 s ago" in " ".join(" ".join(table(seen, diagnose(seen))).replace("!", "").split())
    page = sections(Overview(seen, diagnose(seen), {}))
    assert f"<dt>Since</dt><dd>56 s, {told}: the last 42 s ago</dd>" in page
    assert f"<td>{told}</td>" in page  # the server's time left
    assert "no new ones: the last 42 s ago" in words(healthier)
    assert "<td>no new ones</td>" in sections(Overview(healthier, diagnose(healthier), {}))


@pytest.mark.parametrize(
    ("crowd", "told"),
    [
        ([worker(7, 13, others=2)], "process 7: 13 of 15 connections of its pool are leaked, 1 request waits in vain"),
        ([worker(7, 15), worker(8, 15)], "processes 7, 8: all 30 connections of 2 pools are leaked, 2 requests wait in vain, 2 gave up"),
        ([worker(7, 5, most=20.0, engines=2)], "process 7: all 5 connections of its pool are leaked, 1 request waits in vain"),
        ([worker(7, 15, pending=0)], "process 7: all 15 connections of its pool are leaked, 1 gave up so far"),
        ([worker(pid, 15) for pid in range(1, 13)], "processes 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more: all 180 connections of 12"),
        ([worker(7, 1, most=1.0)], "process 7: the only connection of its pool is leaked, 1 request waits in vain"),
    ],
    ids=["nearly all", "two processes", "one of two engines", "nobody waits", "many processes", "a pool of one"],
)  # fmt: skip
def test_leaks_that_leave_nothing_are_told_of_their_own_pools(crowd: list[ProcessSnapshot], told: str) -> None:
    assert told in words(looked(*crowd))


SMALL = "the pool of process 7 (15 connections at most) is too small, or its connections held too long"


@pytest.mark.parametrize(
    ("crowd", "told"),
    [
        ([worker(7, 0, others=15)], f"1 request waiting for a connection now, 1 gave up so far: {SMALL}"),
        ([worker(7, 5, others=10)], SMALL),
        ([worker(7, 0, others=15, age=900.0)], SMALL),
        ([worker(7, 3)], SMALL),
        ([worker(7, 0, others=15), worker(8, 0, others=5, most=5.0)], "2 requests waiting for a connection now, 2 gave up so far: 2 pools (5 to 15 connections at most each) are too small, or their connections held too long"),
    ],
    ids=["load", "a leak beside load", "long work", "one with room by now", "two pools"],
)  # fmt: skip
def test_a_pool_that_load_fills_is_told_with_its_own_limit(crowd: list[ProcessSnapshot], told: str) -> None:
    assert told in words(looked(*crowd))
    assert "in vain" not in words(looked(*crowd))


def test_where_nothing_stops_a_pool_it_is_not_called_too_small() -> None:
    for most in (float("inf"), 0.0):  # or where its engines are gone
        assert "too small" not in words(looked(worker(7, 0, others=15, most=most, timeouts=0)))
