"""A fresh login as an ordinary role, now and then: the only way to know that the application could log in too."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgleak.postgres.connection import APPLICATION_NAME, connect
from pgleak.postgres.reasons import REASONS, ReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgleak.settings import Canary, Timeouts

_MOMENT = 1.0  # seconds that a scrape waits for a login, so that one in good order shows at once
_EARLY = 0.95  # of the interval: a scrape that comes a little early still counts as due


@dataclass(frozen=True, slots=True)
class Logins:
    """What the canary knows: ``success`` is None before its first login has ended."""

    success: bool | None = None
    failures: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    reason: str = ""
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

    def start(self) -> None:
        """Begin a login in the background when one is due. Never raises."""
        now = self._clock()
        running = self._thread is not None and self._thread.is_alive()
        if running or now - self._last < self._canary.interval * _EARLY:
            return
        self._last = now
        thread = threading.Thread(target=self._login, name="pgleak-canary", daemon=True)
        with contextlib.suppress(RuntimeError):  # no more threads to be had; the next read tries again
            thread.start()
            self._thread = thread

    def finish(self, seconds: float) -> Logins:
        """Wait a moment, and no longer than ``seconds``, for a login that is under way, and return what is known."""
        if self._thread is not None and seconds > 0:
            self._thread.join(min(seconds, _MOMENT))
        return self.logins

    def _login(self) -> None:
        deadline = self._clock() + self._timeouts.connect
        try:
            connect(
                self._canary.dsn,
                self._timeouts,
                deadline,
                self._clock,
                application_name=f"{APPLICATION_NAME} canary",
            ).close()
        except ReadError as error:
            self._failed(error.reason, error.detail)
        except Exception as error:  # noqa: BLE001  a thread that ended by an exception would print it, secrets and all
            self._failed("other", f"internal error: {type(error).__name__}")
        else:
            self.logins = Logins(success=True, failures=self.logins.failures)

    def _failed(self, reason: str, detail: str) -> None:
        failures = {**self.logins.failures, reason: self.logins.failures[reason] + 1}
        self.logins = Logins(success=False, failures=failures, reason=reason, detail=detail)
