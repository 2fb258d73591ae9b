"""Engines that pile up are told once: where their connections are."""

from __future__ import annotations

from dataclasses import replace

from pgleak.pool.reading import Reading, Reported
from pgleak.pool.snapshot import Backend, EngineSite
from pgleak.who.connection import Connection
from pgleak.who.heaps import heaps, owned_pools
from state_support import FRAME, a_pool, a_snapshot

AT = 10_000.0
CROWDED, FINE = ("crowded", "shop", "shop"), ("fine", "shop", "shop")
#: One engine in use since long ago, fifteen that were used once, and two that are still new.
OPENED = (AT - 9000, *(AT - 100 - 10 * number for number in range(15)), AT - 3, AT - 2)
POOL = replace(
    a_pool(),
    idle=tuple(Backend(number, opened, "db:5432/shop") for number, opened in enumerate(OPENED)),
    made=(EngineSite((FRAME,), 18, 15),),
)
FOLDER = Reading((Reported(a_snapshot(POOL), 0.0),))
PROCESS = FOLDER.processes[0].snapshot.process


def connection(server: str, *, known: bool = True) -> Connection:
    process, pool = (PROCESS, "shop") if known else (None, "")
    return Connection(
        server, 1, "shop", "shop", "shop", "", "idle", 1.0, 1.0, None, "", "pooled", process=process, pool=pool
    )


def test_a_pile_is_charged_to_the_server_that_has_it() -> None:
    groups = {CROWDED: [connection("crowded")] * 18, FINE: [connection("fine"), connection("fine", known=False)]}
    owned = owned_pools(groups, dict.fromkeys(groups, "shop"), FOLDER)
    assert heaps(owned[FINE], groups[FINE], AT) == ()
    assert owned[FINE] == []
    (heap,) = heaps(owned[CROWDED], groups[CROWDED], AT)
    assert heap.made.unused == 15


def test_its_ages_are_those_of_connections_that_were_used_once() -> None:
    (heap,) = heaps([(FOLDER.processes[0], POOL)], [connection("crowded")] * 18, AT)
    assert (heap.since, heap.ages[-1], len(heap.ages)) == (240.0, 100.0, 15)


def test_no_more_are_told_than_the_server_has() -> None:
    (heap,) = heaps([(FOLDER.processes[0], POOL)], [connection("crowded")] * 12, AT)
    assert (heap.made.unused, len(heap.ages)) == (12, 12)


def test_a_pool_without_a_connection_belongs_wherever_its_name_is() -> None:
    groups = {CROWDED: [connection("crowded", known=False)], FINE: [connection("fine", known=False)]}
    owned = owned_pools(groups, dict.fromkeys(groups, "shop"), FOLDER)
    assert [len(each) for each in owned.values()] == [1, 1]
