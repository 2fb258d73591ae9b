"""Which applications report completely, so that a connection which none of their processes knows means something.

Nobody can know from one moment whether a process is missing. So it is learned: where for ten minutes each connection of
one application, user, database and client address was held by a process that reports, all of them report there. From
then on, one that none of them knows is unclaimed. A setting can say so from the start.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pgleak.pool.reading import STALE_AFTER

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Sequence

    from pgleak.holders.join import Join
    from pgleak.pool.reading import Reading, Reported
    from pgleak.postgres.backends import Origin, ServerBackend

LEARNING = 600.0  # seconds
#: Seconds that a connection goes unclaimed before it is called so: a new one is not reported yet, that of a process which is
#: just ending is not reported any more. Processes write every two seconds.
PATIENCE = 10.0


class Coverage:
    """Remembers from look to look. Not safe for concurrent use."""

    def __init__(
        self,
        known: Sequence[re.Pattern[str]] = (),
        *,
        learning: float = LEARNING,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known = known
        self._learning = learning
        self._patience = patience
        self._clock = clock
        self._since: dict[Origin, float] = {}  # when an origin was first seen to be claimed as a whole
        self._complete: set[Origin] = set()
        self._nobody: dict[tuple[str, int, float], float] = {}  # connections that nobody claims, and since when

    def judge(self, join: Join, folder: Reading) -> Join:
        """The join with `unclaimed` where that is sure. To be called at each look, with the folder that was joined."""
        now = self._clock()
        waiting: dict[tuple[str, int, float], float] = {}
        loose: list[int] = []
        claimed: set[Origin] = set()
        for index, held in enumerate(join.held):
            if held.claim is not None:
                claimed.add(held.backend.origin)
            elif held.backend.started is not None and not held.doubt:
                key = held.backend.server, held.backend.pid, held.backend.started // 10
                # the start is computed from an age, so it may fall into the next ten seconds at the next look
                first = min(self._nobody.get((*key[:2], key[2] + step), now) for step in (-1, 0, 1))
                waiting[key] = first
                if now - first >= self._patience:
                    loose.append(index)
        self._nobody = waiting
        self._learn(join, claimed, {join.held[index].backend.origin for index in loose}, now)
        if folder.problem or folder.skipped:
            return join  # a process may be among what could not be read
        hung = _hung(folder.processes)
        # what came through a pooler is there under a process id that no process knows
        unmatched = {each.application_name for each in join.unplaced if each.reason != "not_watched"}
        reporting = join.reported - unmatched
        unclaimed = {index for index in loose if self._is_unclaimed(join.held[index].backend, reporting, hung)}
        if not unclaimed:
            return join
        judged = [each._replace(holder="unclaimed") if i in unclaimed else each for i, each in enumerate(join.held)]
        return replace(join, held=tuple(judged))

    def _learn(self, join: Join, claimed: set[Origin], loose: set[Origin], now: float) -> None:
        for origin in [origin for origin in self._since if origin[3] not in join.reported]:
            del self._since[origin]  # whoever reported is gone, and who comes next may not report
        for origin in loose - self._complete:
            self._since.pop(origin, None)
        for origin in claimed - loose:
            self._since.setdefault(origin, now)
        self._complete = {origin for origin, since in self._since.items() if now - since >= self._learning}

    def _is_unclaimed(self, backend: ServerBackend, reporting: frozenset[str], hung: dict[str, float]) -> bool:
        if backend.application_name not in reporting or backend.started is None:
            return False
        if backend.started > hung.get(backend.application_name, float("inf")):
            return False  # a process that hangs may have opened it since it last reported
        return backend.origin in self._complete or any(pattern.fullmatch(backend.label) for pattern in self._known)


def _hung(processes: Iterable[Reported]) -> dict[str, float]:
    """When the processes of an application that hang reported last, the earliest, by application name."""
    earliest: dict[str, float] = {}
    for reported in processes:
        if reported.silence > STALE_AFTER:
            for pool in reported.snapshot.pools:
                taken = reported.snapshot.taken
                earliest[pool.application_name] = min(taken, earliest.get(pool.application_name, taken))
    return earliest
