"""State files: one per process, locked while it lives; what is in them adds up."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from benchmarks import merge
from benchmarks.made import medians

from pgleak.pool import reading
from pgleak.pool.snapshot import (
    Frame,
)
from state_support import a_checkout, a_pool, a_snapshot, metrics_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pgleak.pool.statefile import StateFile


def test_a_living_process_is_read_as_it_wrote(folder: Path, write: Callable[..., StateFile]) -> None:
    write()
    (reported,) = reading.read(folder).processes
    assert reported.snapshot == a_snapshot()
    assert not reported.stale


def test_counts_and_counters_are_sums_and_ages_are_maxima(folder: Path, write: Callable[..., StateFile]) -> None:
    write(a_snapshot(replace(a_pool(held=2), checkouts=(a_checkout(1, 7.0), a_checkout(2, 9.0))), pid=1))
    write(a_snapshot(a_pool(checkouts=7), pid=2))
    metrics = metrics_of(folder)
    assert metrics["sqlalchemy_pool_connections"] == 2 * 2 + 3
    assert metrics["sqlalchemy_pool_checkouts_total"] == 5 + 7
    assert metrics["sqlalchemy_pool_oldest_checkout_seconds"] == 9.0
    assert metrics["sqlalchemy_pool_pending_requests"] == 4
    assert metrics["sqlalchemy_pool_processes"] == 2
    assert metrics["pgleak_reporting_processes"] == 2
    assert metrics["pgleak_state_folder_readable"] == 1


def test_a_process_that_hangs_is_told_and_still_holds(folder: Path, write: Callable[..., StateFile]) -> None:
    write(stamp=time.monotonic() - 60)
    (reported,) = reading.read(folder).processes
    assert reported.stale
    assert reported.snapshot.pools[0].checkouts[0].age == pytest.approx(63, abs=2)
    assert metrics_of(folder)["pgleak_stale_processes"] == 1
    assert metrics_of(folder)["sqlalchemy_pool_connections"] == 3


def test_a_snapshot_too_large_for_its_slot_is_written_without_stacks(
    folder: Path, write: Callable[..., StateFile]
) -> None:
    frames = [Frame("m", "f", f"/srv/{'x' * 900}/{number}.py", number) for number in range(5000)]
    checkouts = tuple(replace(a_checkout(number), frames=(frame,), standing=()) for number, frame in enumerate(frames))
    write(a_snapshot(replace(a_pool(), checkouts=checkouts)))
    (reported,) = reading.read(folder).processes
    assert len(reported.snapshot.pools[0].checkouts) == 5000
    assert reported.snapshot.pools[0].checkouts[0].frames == ()


def test_sums_are_true_for_any_mixture_of_processes(folder: Path, write: Callable[..., StateFile]) -> None:
    """Random pools in random processes, some ended, folds in between: the sum is the sum of all, at every step."""
    chance = random.Random(4711)
    expected = 0
    living: list[StateFile] = []
    for step in range(40):
        checkouts = chance.randrange(1000)
        expected += checkouts
        living.append(write(a_snapshot(a_pool(chance.choice(["a", "b"]), checkouts=checkouts), pid=step + 1)))
        if chance.random() < 0.6:
            living.pop(chance.randrange(len(living))).close()
        if chance.random() < 0.2:
            reading.fold(folder)
        found = reading.read(folder)
        assert len(found.processes) == len(living)
        total = sum(pool.counters.checkouts for each in found.processes for pool in each.snapshot.pools)
        assert total + sum(counters.checkouts for counters in found.ended.values()) == expected


def test_sixty_four_workers_are_read_in_a_small_multiple_of_opening_their_files(tmp_path: Path) -> None:
    """Under 20 ms where nothing else runs (benchmarks/merge.py); as a ratio here, so that a busy machine does not matter."""
    folder = tmp_path / "state"
    files = merge.fill(folder)
    floor, merged = medians(9, partial(merge.touch, folder), partial(merge.merge, folder))
    for file in files:
        file.close()
    assert merged < 25 * floor
