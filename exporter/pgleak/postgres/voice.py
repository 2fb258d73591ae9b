"""One log line when a server goes, one when it comes back: changes, not states, and never a flood."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from pgleak.postgres.reasons import REASONS

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from pgleak.postgres.activity import Server

_MOST_LINES = 6  # per target and period: a server that flaps is one story, not a hundred
_PERIOD = 600.0  # seconds
_REMINDER = 3600.0  # seconds until a server that is still down is mentioned again


class Voice:
    """Speaks for one target."""

    def __init__(self, log: logging.Logger, target: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._target = target
        self._clock = clock
        self._reason: str | None = None  # None: nothing said yet, "": up
        self._since = clock()
        self._said = float("-inf")
        self._lines: deque[float] = deque(maxlen=_MOST_LINES)
        self._kept_back = 0
        self._role_problem = ""

    def down(self, reason: str, detail: str) -> None:
        """The server could not be read."""
        now = self._clock()
        if not self._reason:
            self._since = now
        if reason != self._reason or now - self._said >= _REMINDER:
            self._reason = reason
            self._say("warning", f"cannot be read ({reason}): {detail}. {REASONS[reason]}")

    def up(self, server: Server) -> None:
        """The server was read."""
        if self._reason is None:
            self._say(
                "info",
                f"is read: {server.usable} of {server.max_connections} connections usable by ordinary roles",
            )
        elif self._reason:
            self._say("info", f"is read again after {self._clock() - self._since:.0f} s")
        self._reason = ""
        problem = _role_problem(server)
        if problem and problem != self._role_problem:
            self._say("warning", problem)
        self._role_problem = problem

    def _say(self, level: str, text: str) -> None:
        now = self._clock()
        if len(self._lines) == _MOST_LINES and now - self._lines[0] < _PERIOD:
            self._kept_back += 1
            return
        if self._kept_back:
            text = f"{text} ({self._kept_back} lines about this server were kept back)"
        self._kept_back = 0
        self._lines.append(now)
        self._said = now
        getattr(self._log, level)("server %s %s", self._target, text)


def _role_problem(server: Server) -> str:
    if server.superuser:
        return (
            "is watched as a superuser: more than it takes, and it uses up the slots reserved for you. "
            "`pgleak grants` prints the SQL for a role of its own"
        )
    if not server.stats_visible:
        return (
            "hides other roles' states from this role (pg_read_all_stats is missing or not inherited): counts only, no "
            "ages, no suspects. `pgleak grants` prints the SQL"
        )
    return ""
