"""Reads one server when asked: many askers share one read, a deadline holds whatever happens, and nothing raises."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgleak.postgres import activity
from pgleak.postgres.canary import CanaryProbe, Logins
from pgleak.postgres.connection import HeldConnection
from pgleak.postgres.names import Namer
from pgleak.postgres.queries import load
from pgleak.postgres.reasons import REASONS, ReadError
from pgleak.postgres.voice import Voice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgleak.postgres.activity import Application, Server
    from pgleak.settings import Settings, Target

_LOG = logging.getLogger("pgleak.postgres")
_GRACE = 0.2  # seconds that an asker waits beyond its deadline for a read that is just ending
_HAS_SESSION_COUNTERS = 140000

_ACTIVITY = load("activity")
_SERVER = load("server")
_SERVER_WITH_SESSIONS = f"{_SERVER}\nUNION ALL\n{load('sessions')}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one read of one server gave; without ``server`` it failed and ``reason`` and ``detail`` say why."""

    name: str
    reason: str = ""
    detail: str = ""
    duration: float = 0.0  # seconds
    ended: float = 0.0  # seconds of the reader's clock
    server: Server | None = None
    used: int = 0
    applications: Mapping[tuple[str, ...], Application] = field(default_factory=dict)
    ignored: frozenset[tuple[str, ...]] = frozenset()
    overflowed_applications: int = 0
    overflowed_addresses: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)  # failed reads by reason, since the exporter started
    last_success: float | None = None  # Unix time
    logins: Logins | None = None


class Flight:
    """A read that is under way, and those who wait for it."""

    __slots__ = ("done", "reading")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.reading: Reading | None = None


class Reader:
    """Watches one target over its held connection."""

    def __init__(
        self,
        target: Target,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.target = target
        self._settings = settings
        self._clock = clock
        self._now = now
        self._connection = HeldConnection(target.dsn, settings.timeouts, clock)
        self._canary = CanaryProbe(target.canary, settings.timeouts, clock) if target.canary else None
        self._namer = Namer(settings)
        self._voice = Voice(_LOG, target.name, clock)
        self._lock = threading.Lock()
        self._flight: Flight | None = None
        self._errors = dict.fromkeys(REASONS, 0)
        self._last_success: float | None = None
        self._reported = ""
        self.last: Reading | None = None

    def start(self, deadline: float) -> Flight:
        """Begin a read that ends by ``deadline`` (seconds of the clock), or join the one that is under way."""
        with self._lock:
            flight = self._flight
            if flight is not None and not flight.done.is_set():
                return flight
            flight = self._flight = Flight()
        thread = threading.Thread(
            target=self._fly, args=(flight, deadline), name=f"pgleak-{self.target.name}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads to be had
            flight.reading = self._failed("other", "the system gives no more threads", deadline=0.0)
            flight.done.set()
        return flight

    def finish(self, flight: Flight, deadline: float) -> Reading:
        """Wait for a read, no longer than ``deadline`` and a moment; never raises."""
        flight.done.wait(max(deadline - self._clock(), 0) + _GRACE)
        if flight.reading is None:
            # Only what libpq does before it has a socket, such as resolving a name, can outlast the deadline.
            return self._failed("timeout", "the read did not end in time; is the name service slow?", deadline)
        return flight.reading

    def close(self) -> None:
        """Give the slot back; a read that is under way ends by itself."""
        with self._lock:
            if self._flight is None or self._flight.done.is_set():
                self._connection.close()

    def _fly(self, flight: Flight, deadline: float) -> None:
        started = self._clock()
        try:
            if self._canary:
                self._canary.start(deadline)
            reading = self._read(deadline, started)
        except ReadError as error:
            reading = self._failed(error.reason, error.detail, deadline, started)
        except Exception as error:  # noqa: BLE001  a fault of ours must show as data, not as a missing scrape
            self._connection.close()
            self._report(error)
            reading = self._failed("other", f"internal error: {type(error).__name__}", deadline, started)
        flight.reading = self.last = reading
        flight.done.set()

    def _read(self, deadline: float, started: float) -> Reading:
        connection = self._connection
        connection.ensure(deadline)
        rows = connection.run("pgleak_activity", _ACTIVITY, deadline)
        with_sessions = connection.server_version >= _HAS_SESSION_COUNTERS
        facts = connection.run("pgleak_server", _SERVER_WITH_SESSIONS if with_sessions else _SERVER, deadline)

        server = activity.server(facts)
        packs = activity.packed(rows)
        now = self._clock()
        keys = self._namer.keys(packs, now)
        applications = activity.summarise(packs, keys, self._settings.thresholds)
        applications = self._namer.remember(applications, now)
        self._last_success = self._now()
        with self._lock:
            self._voice.up(server)
        return Reading(
            name=self.target.name,
            duration=self._clock() - started,
            ended=self._clock(),
            server=server,
            used=sum(len(pack.session_ms) for pack in packs),
            applications=applications,
            ignored=frozenset(key for key in applications if self._namer.ignored(key)),
            overflowed_applications=self._namer.overflowed_applications,
            overflowed_addresses=self._namer.overflowed_addresses,
            errors=dict(self._errors),
            last_success=self._last_success,
            logins=self._canary.finish(deadline) if self._canary else None,
        )

    def _report(self, error: Exception) -> None:
        """Log a fault of ours once, by its frames and without its message, which could quote a value."""
        frames = "".join(traceback.format_tb(error.__traceback__))
        if frames != self._reported:
            self._reported = frames
            _LOG.error("internal error (%s), please report it:\n%s", type(error).__name__, frames)

    def _failed(self, reason: str, detail: str, deadline: float, started: float | None = None) -> Reading:
        with self._lock:
            self._errors[reason] += 1
            errors = dict(self._errors)
            self._voice.down(reason, detail)
        return Reading(
            name=self.target.name,
            reason=reason,
            detail=detail,
            duration=self._clock() - started if started is not None else 0.0,
            ended=self._clock(),
            errors=errors,
            last_success=self._last_success,
            logins=self._canary.finish(deadline) if self._canary else None,
        )
