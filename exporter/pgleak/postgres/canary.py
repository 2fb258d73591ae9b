"""A fresh login as an ordinary role, now and then: the only way to know that the application could log in too."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgleak.postgres.connection import APPLICATION_NAME, connect
from pgleak.postgres.reasons import REASONS, ReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgleak.settings import Canary, Timeouts

_EARLY = 0.95  # of the interval: a scrape that comes a little early still counts as due


@dataclass(frozen=True, slots=True)
class Logins:
    """What the canary knows: ``success`` is None before its first login has ended."""

    success: bool | None = None
    failures: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    detail: str = ""


class CanaryProbe:
    """Logs in when asked and due; at most one login is under way."""

    def __init__(self, canary: Canary, timeouts: Timeouts, clock: Callable[[], float] = time.monotonic) -> None:
        self._canary = canary
        self._timeouts = timeouts
        self._clock = clock
        self._last = float("-inf")
        self._thread: threading.Thread | None = None
        self.logins = Logins()

    def start(self, deadline: float) -> None:
        """Begin a login in the background when one is due; it ends by ``deadline`` (seconds of the clock)."""
        now = self._clock()
        running = self._thread is not None and self._thread.is_alive()
        if running or now - self._last < self._canary.interval * _EARLY:
            return
        self._last = now
        self._thread = threading.Thread(target=self._login, args=(deadline,), name="pgleak-canary", daemon=True)
        self._thread.start()

    def finish(self, deadline: float) -> Logins:
        """Wait for a login that is under way, no longer than ``deadline``, and return what is known."""
        if self._thread is not None:
            self._thread.join(max(deadline - self._clock(), 0) + 0.1)
        return self.logins

    def _login(self, deadline: float) -> None:
        try:
            connect(
                self._canary.dsn,
                self._timeouts,
                deadline,
                self._clock,
                application_name=f"{APPLICATION_NAME} canary",
            ).close()
        except ReadError as error:
            failures = {**self.logins.failures, error.reason: self.logins.failures[error.reason] + 1}
            self.logins = Logins(success=False, failures=failures, detail=error.detail)
        else:
            self.logins = Logins(success=True, failures=self.logins.failures)
