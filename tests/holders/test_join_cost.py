"""What the join costs, as a ratio in one run, so that a busy or slow machine does not matter."""

from __future__ import annotations

from benchmarks.join import NOW, reading, reported
from benchmarks.made import medians

from pgleak.holders.coverage import Coverage
from pgleak.holders.join import join
from pgleak.pool.reading import Reading
from pgleak.postgres.backends import backends

PROCESSES = 32
EACH = 60  # connections


def test_saying_who_holds_each_connection_costs_a_few_times_the_making_of_its_row() -> None:
    """About three times, coverage included (python -m benchmarks.join); what compares each with each is far beyond."""
    pids = range(1000, 1000 + PROCESSES * EACH)
    one = reading(pids)
    processes = tuple(reported(n, pids[n * EACH : (n + 1) * EACH], pids.stop) for n in range(PROCESSES))
    rows = backends(one)
    coverage, folder = Coverage(), Reading(processes)
    found = join(rows, processes)
    assert all(held.claim for held in found.held)
    plain, joined = medians(
        15, lambda: backends(one), lambda: coverage.judge(join(rows, processes), folder, {one.name: NOW})
    )
    assert joined < 8 * plain
