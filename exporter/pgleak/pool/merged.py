"""The metrics of all processes that share a folder, for `pgleak serve --pool-dir` and any worker's own /metrics."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pgleak.pool import reading, statefile
from pgleak.pool.collector import families
from pgleak.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric

    from pgleak.pool.folder import StrPath
    from pgleak.pool.reading import Reading
    from pgleak.pool.snapshot import ProcessSnapshot

REPORTING = Spec(
    "pgleak_reporting_processes",
    "gauge",
    "Living processes with a state file, by the name that the server shows for their connections.",
    ("application",),
    "processes",
)
STALE = Spec(
    "pgleak_stale_processes",
    "gauge",
    "Those among them that hang: they live, but have not written for more than 10 s (five writes were due).",
    ("application",),
    "processes",
    note="Their connections count as before, their ages go on.",
)
SKIPPED = Spec(
    "pgleak_state_files_skipped",
    "gauge",
    "Files in the folder that were passed over now, by reason; all reasons are present from the start.",
    ("reason",),
    "files",
    note=(
        "`checksum`, `truncated`, `malformed`, `foreign`, `too_large`: damaged or not ours; `version`: of another "
        "version of pgleak; `foreign_owner`: another user's, or writable by others; `not_a_file`: a link, a pipe, a folder; "
        "`renamed`: a copy under another name; `unreadable`: the system refuses."
    ),
)
READABLE = Spec(
    "pgleak_state_folder_readable",
    "gauge",
    "1 when the folder of state files could be read, else 0: missing, another user's, or open to others; "
    "or by a fault of pgleak itself, which its log then tells.",
)

#: What comes with the metrics of the in-process half where processes share a folder, in output order.
SHARED_FOLDER: tuple[Spec, ...] = (REPORTING, STALE, SKIPPED, READABLE)


def collect_folder(path: StrPath, found: Reading | None = None) -> Iterator[Metric]:
    """Everything that the processes of this folder report, added up; ``found`` where it was read already. Never raises."""
    found = found or reading.read(path)
    if found.unfolded:
        reading.fold(path)
    yield from families([each.snapshot for each in found.processes], found.ended)
    yield from _about(found)


def collect_worker(snapshot: Callable[[], ProcessSnapshot]) -> Iterator[Metric]:
    """What a worker shows at its own /metrics: all workers where they share a folder, else itself alone.

    The worker's file is brought up to date first: a counter that was shown may not fall when the worker is killed.
    """
    statefile.ensure(snapshot)
    path = statefile.flush()
    if path is None:
        yield from families([snapshot()])
        return
    found = reading.read(path)
    if found.problem:
        yield from families([snapshot()])
        yield from _about(found)
    else:
        yield from collect_folder(path, found)


def _about(found: Reading) -> Iterator[Metric]:
    reporting: Counter[str] = Counter()
    stale: Counter[str] = Counter()
    for each in found.processes:
        application = each.snapshot.process.application_name
        reporting[application] += 1
        stale[application] += each.stale
    yield REPORTING.family(((application,), count) for application, count in reporting.items())
    yield STALE.family(((application,), count) for application, count in stale.items())
    yield SKIPPED.family(((reason,), found.skipped.get(reason, 0)) for reason in reading.REASONS)
    yield READABLE.family([((), 0 if found.problem else 1)])
