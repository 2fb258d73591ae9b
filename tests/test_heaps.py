"""Engines that pile up are told once: where their connections are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pgleak.pool.reading import Reading, Reported
from pgleak.pool.snapshot import Backend, EngineSite
from pgleak.who.connection import Connection
from pgleak.who.heaps import heaps, owned_pools
from state_support import FRAME, a_pool, a_snapshot

if TYPE_CHECKING:
    from pgleak.pool.snapshot import ProcessSnapshot

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


@pytest.mark.parametrize(("unused", "told"), [((4, 3, 3), 10), ((3, 3, 3), 0), ((9, 0, 0), 0), ((15, 0), 15)])
def test_a_place_that_makes_a_few_engines_in_each_process_makes_a_pile(unused: tuple[int, ...], told: int) -> None:
    """Each of many workers makes its few."""
    workers = [replace(a_snapshot(), process=replace(PROCESS, pid=number)) for number, _ in enumerate(unused)]
    owned = [
        (Reported(worker, 0.0), replace(POOL, made=(EngineSite((FRAME,), count + 1, count),)))
        for worker, count in zip(workers, unused, strict=True)
    ]
    connections = [replace_process(connection("crowded"), worker) for worker in workers for _ in OPENED]
    found = heaps(owned, connections, AT)
    assert sum(heap.made.unused for heap in found) == sum(len(heap.ages) for heap in found) == told
    if unused == (4, 3, 3):
        (heap,) = found
        assert heap.made.engines == 13
        assert heap.ages == (130.0, 120.0, 120.0, 120.0, 110.0, 110.0, 110.0, 100.0, 100.0, 100.0)


def test_a_line_that_makes_engines_for_several_callers_makes_one_pile() -> None:
    """The one who calls it most stands for all; in another process that may be another one."""
    one, other = ((FRAME, replace(FRAME, function=name)) for name in ("search", "order"))
    made = EngineSite(one, 5, 4), EngineSite(other, 9, 9), EngineSite((replace(FRAME, line=FRAME.line + 1),), 3, 3)
    workers = [replace(a_snapshot(), process=replace(PROCESS, pid=number)) for number in range(2)]
    pools = replace(POOL, made=made), replace(POOL, made=(EngineSite(one, 8, 6), EngineSite(other, 3, 0)))
    owned = [(Reported(worker, 0.0), pool) for worker, pool in zip(workers, pools, strict=True)]
    connections = [replace_process(connection("crowded"), worker) for worker in workers for _ in OPENED]
    (heap,) = heaps(owned, connections, AT)
    assert (heap.made.engines, heap.made.unused, heap.made.frames) == (5 + 9 + 8 + 3, 4 + 9 + 6, other)


def replace_process(each: Connection, worker: ProcessSnapshot) -> Connection:
    return each._replace(process=worker.process)


def test_a_pool_without_a_connection_belongs_wherever_its_name_is() -> None:
    groups = {CROWDED: [connection("crowded", known=False)], FINE: [connection("fine", known=False)]}
    owned = owned_pools(groups, dict.fromkeys(groups, "shop"), FOLDER)
    assert [len(each) for each in owned.values()] == [1, 1]
