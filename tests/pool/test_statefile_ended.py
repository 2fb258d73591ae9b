"""What a process leaves behind when it ends: its counters, added up in one file, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pgleak.pool import reading
from pgleak.pool.encoding import VERSION
from pgleak.pool.snapshot import (
    OTHER_SITES,
    PoolCounters,
)
from state_support import a_pool, a_snapshot, metrics_of, state_files, truncate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from pgleak.pool.folder import Folder
    from pgleak.pool.statefile import StateFile


def test_an_ended_process_leaves_its_counters_and_nothing_else(folder: Path, write: Callable[..., StateFile]) -> None:
    write()
    write().close()
    metrics = metrics_of(folder)
    assert metrics["sqlalchemy_pool_processes"] == 1
    assert metrics["sqlalchemy_pool_connections"] == 3
    assert metrics["sqlalchemy_pool_checkouts_total"] == 10
    assert metrics_of(folder) == metrics  # folded meanwhile


def test_the_folder_stays_small_and_the_sum_true(folder: Path, write: Callable[..., StateFile]) -> None:
    for generation in range(1, 31):
        write().close()
        if generation % 10 == 0:
            assert reading.fold(folder) == 10
    assert state_files(folder) == []
    assert sorted(path.name for path in folder.iterdir()) == [".lock", f"ended-{VERSION}"]
    assert reading.read(folder).ended["shop"].checkouts == 150


def test_a_sum_that_is_larger_than_its_file_may_be_leaves_sites_out_and_counts_them_all(
    folder: Path, write: Callable[..., StateFile]
) -> None:
    """Each process fits; what they leave behind together does not."""
    sites = {f"package.module_with_a_name.sub{number}:Class.method_{number}_{'x' * 200}": 1 for number in range(150)}
    for generation in range(2):
        pools = [
            replace(
                a_pool(),
                name=f"shop/{generation}/{number}",
                counters=PoolCounters(
                    suspects={f"{generation}.{number}.{site}": 1 for site in sites}, suspects_returned={}
                ),
            )
            for number in range(60)
        ]
        write(replace(a_snapshot(), pools=tuple(pools))).close()
    assert reading.fold(folder) == 2
    ended = reading.read(folder).ended
    assert sum(sum(counters.suspects.values()) for counters in ended.values()) == 2 * 60 * len(sites)
    assert all(counters.suspects[OTHER_SITES] for counters in ended.values())
    assert state_files(folder) == []


def test_being_killed_while_folding_counts_nothing_twice(folder: Path, write: Callable[..., StateFile]) -> None:
    """The sum was replaced, and the process was killed before it removed the files that are in it."""
    write().close()
    (path,) = state_files(folder)
    content = path.read_bytes()
    reading.fold(folder)
    path.write_bytes(content)
    path.chmod(0o600)
    assert reading.read(folder).ended["shop"].checkouts == 5
    assert reading.fold(folder) == 1
    assert reading.read(folder).ended["shop"].checkouts == 5
    assert state_files(folder) == []


def test_many_who_fold_and_read_at_once_agree(folder: Path, write: Callable[..., StateFile]) -> None:
    """Readers beside folders see the same sum at each moment."""
    for _ in range(40):
        write().close()
    code = (
        "import sys; from pgleak.pool import reading; folder = sys.argv[1]\n"
        "for _ in range(100):\n"
        "    reading.fold(folder)\n"
        "    assert reading.read(folder).ended['shop'].checkouts == 200, reading.read(folder)\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, folder]) for _ in range(3)]
    assert [other.wait(30) for other in others] == [0, 0, 0]


def test_a_fold_in_the_midst_of_a_reading_loses_nothing(
    folder: Path, write: Callable[..., StateFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters never fall, even where a reader could not get the lock: before the first fold there is none."""
    for _ in range(3):
        write().close()
    list_names = reading._state_names

    def fold_first(opened: Folder) -> Any:
        monkeypatch.undo()
        assert reading.fold(folder) == 3
        return list_names(opened)

    monkeypatch.setattr(reading, "_state_names", fold_first)
    assert reading.read(folder).ended["shop"].checkouts == 15


def test_call_sites_of_ended_processes_are_bounded(folder: Path, write: Callable[..., StateFile]) -> None:
    """Each deploy may bring new names; the sum keeps the 200 greatest and adds the rest up."""
    sites = {f"module{number}:function": 1 + number for number in range(500)}
    pool = replace(a_pool(), counters=PoolCounters(suspects=sites))
    write(a_snapshot(pool)).close()
    reading.fold(folder)
    kept = reading.read(folder).ended["shop"].suspects
    assert len(kept) == 201
    assert sum(kept.values()) == sum(sites.values())


def test_files_of_a_younger_process_survive_the_fold(folder: Path, write: Callable[..., StateFile]) -> None:
    write()
    write().close()
    assert reading.fold(folder) == 1
    assert len(reading.read(folder).processes) == 1


def test_what_killed_processes_left_half_made_is_cleared_away(folder: Path, write: Callable[..., StateFile]) -> None:
    """A file that was never finished, after a minute; one of an ended process that cannot be read, after an hour."""
    write().close()
    (damaged,) = state_files(folder)
    truncate(damaged)
    half_made = folder / ".new-0123"
    half_made.touch(0o600)
    reading.fold(folder)
    assert half_made.exists()
    assert damaged.exists()
    for path, age in ((half_made, 100), (damaged, 4000)):
        os.utime(path, (time.time() - age, time.time() - age))
    reading.fold(folder)
    assert not half_made.exists()
    assert not damaged.exists()
