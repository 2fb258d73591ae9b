"""One log line when a server goes, one when it comes back: changes, not states, and never a flood."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from pgleak.postgres import role
from pgleak.postgres.reasons import REASONS

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from pgleak.postgres.activity import Server
    from pgleak.postgres.canary import Logins

_MOST_LINES = 6  # per target and period: a server that flaps is one story, not a hundred
_PERIOD = 600.0  # seconds
_GONE = {"connection_lost", "unreachable", "starting_or_stopping"}  # the stages of one restart: one line for all
_FULL = {"slots_exhausted", "role_limit", "database_limit"}
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
        self._urgent_lines: deque[float] = deque(
            maxlen=_MOST_LINES
        )  # of a full server, which no other line may silence
        self._kept_back = 0
        self._owed: dict[str, tuple[str, str, bool]] = {}  # what was kept back last, by what it is about
        self._role_problem = ""
        self._full = False
        self._login: bool | None = None

    def down(self, reason: str, detail: str) -> None:
        """The server could not be read."""
        now = self._clock()
        if not self._reason:
            self._since = now
        same_outage = reason == self._reason or (self._reason in _GONE and reason in _GONE)
        if not same_outage or now - self._said >= _REMINDER:
            urgent = reason in _FULL
            self._say("reach", "warning", f"cannot be read ({reason}): {detail}. {REASONS[reason]}", urgent=urgent)
        self._reason = reason
        self._settle("reach")

    def up(self, server: Server, used: int) -> None:
        """The server was read; ``used`` of its slots are taken."""
        if self._reason is None:
            self._say(
                "reach",
                "info",
                f"is read: {server.usable} of {server.max_connections} connections usable by ordinary roles",
            )
        elif self._reason:
            self._say("reach", "info", f"is read again after {self._clock() - self._since:.0f} s")
        self._reason = ""
        full = used >= server.usable
        if full and not self._full:
            self._say(
                "room",
                "warning",
                f"is full: {used} of {server.usable} connections used, ordinary roles are refused",
                urgent=True,
            )
        elif self._full and not full:
            self._say("room", "info", f"has room again: {used} of {server.usable} connections used", urgent=True)
        self._full = full
        problem = _role_problem(server)
        if problem and problem != self._role_problem:
            self._say("role", "warning", problem)
        elif not problem:
            self._owed.pop("role", None)
        self._role_problem = problem
        self._settle("reach", "room", "role")

    def login(self, logins: Logins) -> None:
        """The canary has tried, or not yet."""
        if logins.success is False and self._login is not False:
            self._say(
                "login",
                "warning",
                f"refuses logins of the canary's role ({logins.reason}): {logins.detail}",
                urgent=logins.reason in _FULL,
            )
        elif logins.success and self._login is False:
            self._say("login", "info", "takes logins of the canary's role again")
        self._login = logins.success
        self._settle("login")

    def _settle(self, *subjects: str) -> None:
        """Say what was kept back, once there is room: the last word on each subject has to be how things are."""
        for subject in subjects:
            level, text, urgent = self._owed.get(subject, ("", "", False))
            if text and self._has_room(urgent=urgent):
                self._kept_back -= 1
                self._say(subject, level, text, urgent=urgent)

    def _has_room(self, *, urgent: bool) -> bool:
        lines = self._urgent_lines if urgent else self._lines
        return len(lines) < _MOST_LINES or self._clock() - lines[0] >= _PERIOD

    def _say(self, subject: str, level: str, text: str, *, urgent: bool = False) -> None:
        if not self._has_room(urgent=urgent):
            self._kept_back += 1
            self._owed[subject] = (level, text, urgent)
            return
        self._owed.pop(subject, None)
        now = self._clock()
        lines = self._urgent_lines if urgent else self._lines
        if self._kept_back:
            text = f"{text} ({self._kept_back} lines about this server were kept back)"
        self._kept_back = 0
        lines.append(now)
        self._said = now
        getattr(self._log, level)("server %s %s", self._target, text)


def _role_problem(server: Server) -> str:
    if server.superuser:
        return f"is watched as a superuser: {role.SUPERUSER}"
    return "" if server.stats_visible else f"is watched by a role that {role.BLIND}. {role.BLIND_REMEDY}"
