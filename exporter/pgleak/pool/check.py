"""Says whether the folder that the processes of an application report to can be read, and what stands in it."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from pgleak.finding import Finding
from pgleak.pool.reading import read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pgleak.pool.folder import StrPath
    from pgleak.pool.reading import Reading

_SHOWN = 3  # names of hung processes

REMEDIES: dict[str, str] = {
    "missing": "start the application with PGLEAK_DIR={path}, or correct the path",
    "not_a_folder": "name the folder itself: applications report to no other, either",
}
"""What the problem's own words do not say, by its reason."""


def check(path: StrPath) -> Iterator[Finding]:
    """Yield the findings about one folder, as this user sees it. Never raises for what is in it."""
    found = read(path)
    if found.problem:
        remedy = REMEDIES.get(found.problem, "applications and `pgleak serve` refuse it alike")
        detail = found.detail.removeprefix(f"{os.fspath(path)}: ")  # whoever asks has the path
        yield Finding("fail", "folder", f"{detail} ({found.problem})", remedy.format(path=os.fspath(path)))
        return
    yield Finding("ok", "folder", _owner(path))
    yield _processes(path, found)
    if found.skipped:
        yield _skipped(found)


def _owner(path: StrPath) -> str:
    try:
        status = Path(path).stat()
    except OSError as error:  # it went in the meantime
        return f"{os.fspath(path)}: {error.strerror}"
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:  # in a container the number may have no name
        owner = str(status.st_uid)
    return f"can be read; owner {owner}, mode {stat.S_IMODE(status.st_mode):04o}"


def _processes(path: StrPath, found: Reading) -> Finding:
    count = len(found.processes)
    if not count:
        remedy = f"start the application with PGLEAK_DIR={os.fspath(path)} and pgleak installed in it"
        return Finding("warn", "processes", "no process reports", remedy)
    pools = {pool.name for each in found.processes for pool in each.snapshot.pools}
    text = f"{count} {'reports' if count == 1 else 'report'}; pools: {_names(pools)}"
    hung = [f"{each.snapshot.process.pid} (silent for {each.silence:.0f} s)" for each in found.processes if each.stale]
    if hung:
        remedy = "they are stopped or hang: look where they stand, for example with py-spy dump --pid"
        return Finding("warn", "processes", f"{text}; without a word lately: {_names(hung)}", remedy)
    return Finding("ok", "processes", text)


def _skipped(found: Reading) -> Finding:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(found.skipped.items()))
    remedy = "docs/metrics.md says what each reason means, at pgleak_state_files_skipped"
    return Finding("warn", "files", f"{sum(found.skipped.values())} skipped: {reasons}", remedy)


def _names(names: Iterable[str]) -> str:
    ranked = sorted(names)
    more = f" and {len(ranked) - _SHOWN} more" if len(ranked) > _SHOWN else ""
    return ", ".join(ranked[:_SHOWN]) + more or "none yet"
