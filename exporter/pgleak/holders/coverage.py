"""Which applications report completely, so that a connection which none of their processes knows means something.

Nobody can know from one moment whether a process is missing. So it is learned: where for ten minutes each connection of
one application, user, database and client address was held by a process that reports, all of them report there. From
then on, one that none of them knows is unclaimed. A setting can say so from the start. What is used is somebody's: it
is never called so, and whoever uses it does not report, so its origin is to be learned anew.

What remains: a process that has given its file up, being about to end, and then takes longer than that to close an idle
connection.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pgleak.holders.join import IMPRECISION

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pgleak.holders.join import Join
    from pgleak.pool.reading import Reading, Reported
    from pgleak.postgres.backends import Origin, ServerBackend

LEARNING = 600.0  # seconds
#: Seconds between two readings of a server that both show a connection which nobody claims, before it is called so: that of a
#: process which is just ending is not reported any more. Another look at the same reading confirms nothing.
PATIENCE = 10.0
#: Seconds that such a connection must have gone unused: what is leaked is never used again.
REST = 60.0
#: Seconds after which an origin that was not seen is forgotten: its address may be somebody else's by then.
FORGOTTEN = 4 * 3600.0


class Coverage:
    """Remembers from look to look. Not safe for concurrent use."""

    def __init__(
        self,
        known: Sequence[re.Pattern[str]] = (),
        *,
        learning: float = LEARNING,
        patience: float = PATIENCE,
        rest: float = REST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known = known
        self._learning = learning
        self._patience = patience
        self._rest = rest
        self._clock = clock
        self._since: dict[Origin, float] = {}  # when an origin was first seen to be claimed as a whole
        self._seen: dict[Origin, float] = {}  # when one of those was there last
        self._complete: set[Origin] = set()
        self._nobody: dict[
            tuple[str, int, float], float
        ] = {}  # connections that nobody claims, and since which reading

    def judge(self, join: Join, folder: Reading, read: Mapping[str, float]) -> Join:
        """The join with `unclaimed` where that is sure. To be called at each look, with the folder that was joined.

        ``read`` says of each server when it was, in seconds of any clock: one reading may be looked at more than once.
        """
        now = self._clock()
        waiting: dict[tuple[str, int, float], float] = {}
        loose: list[int] = []
        claimed: set[Origin] = set()
        foreign: set[Origin] = set()  # of those that somebody uses who does not report
        for index, held in enumerate(join.held):
            if held.claim is not None:
                claimed.add(held.backend.origin)
            elif held.backend.started is not None and not held.doubt:
                key = held.backend.server, held.backend.pid, held.backend.started // 10
                # the start is computed from an age, so it may fall into the next ten seconds at the next look
                shown = read[key[0]]
                first = min(self._nobody.get((*key[:2], key[2] + step), shown) for step in (-1, 0, 1))
                waiting[key] = first
                unused = held.backend.unused or 0.0
                if shown - first > unused + IMPRECISION:
                    foreign.add(held.backend.origin)
                if shown - first >= self._patience and unused >= self._rest and held.backend.state != "active":
                    loose.append(index)
        self._nobody = waiting
        self._learn(join, claimed, foreign, {join.held[index].backend.origin for index in loose}, now)
        if folder.problem or folder.skipped:
            return join  # a process may be among what could not be read
        silent = _silent_since(folder.processes)
        # what came through a pooler is there under a process id that no process knows
        unmatched = {each.application_name for each in join.unplaced if each.reason != "not_watched"}
        reporting = join.reported - unmatched
        unclaimed = {index for index in loose if self._is_unclaimed(join.held[index].backend, reporting, silent)}
        if not unclaimed:
            return join
        judged = [each._replace(holder="unclaimed") if i in unclaimed else each for i, each in enumerate(join.held)]
        return replace(join, held=tuple(judged))

    def _learn(self, join: Join, claimed: set[Origin], foreign: set[Origin], loose: set[Origin], now: float) -> None:
        self._seen.update((origin, now) for origin in claimed | loose)
        for origin in [origin for origin, last in self._seen.items() if now - last > FORGOTTEN]:
            del self._seen[origin]
        for origin in [each for each in self._since if each not in self._seen or each[3] not in join.reported]:
            del self._since[origin]  # whoever reported is gone, and who comes next may not report
        for origin in foreign | (loose - self._complete):
            self._since.pop(origin, None)
        for origin in claimed - loose - foreign:
            self._since.setdefault(origin, now)
        self._complete = {origin for origin, since in self._since.items() if now - since >= self._learning}

    def _is_unclaimed(self, backend: ServerBackend, reporting: frozenset[str], silent: dict[str, float]) -> bool:
        if backend.application_name not in reporting or backend.started is None:
            return False
        if backend.started >= silent.get(backend.application_name, float("inf")) - IMPRECISION:
            return False  # a process may have opened it since it last reported; one that hangs, long ago
        return backend.origin in self._complete or any(pattern.fullmatch(backend.label) for pattern in self._known)


def _silent_since(processes: Iterable[Reported]) -> dict[str, float]:
    """Unix time of the last report of an application's processes, the earliest, by application name."""
    earliest: dict[str, float] = {}
    for reported in processes:
        taken = reported.snapshot.taken
        for pool in reported.snapshot.pools:
            earliest[pool.application_name] = min(taken, earliest.get(pool.application_name, taken))
    return earliest
