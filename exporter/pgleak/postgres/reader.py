"""Reads one server when asked: many askers share one read, a deadline holds whatever happens, and nothing raises."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING

from pgleak.fault import Faults
from pgleak.postgres import activity
from pgleak.postgres.canary import CanaryProbe, Logins
from pgleak.postgres.held import HeldConnection
from pgleak.postgres.names import Namer
from pgleak.postgres.queries import load
from pgleak.postgres.reasons import REASONS, ReadError
from pgleak.postgres.voice import Voice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgleak.postgres.activity import Application, Place, Server
    from pgleak.postgres.evidence import Packed
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
    overflowed: Mapping[str, int] = field(default_factory=dict)  # label -> values beyond its cap
    combinations_overflowed: int = 0
    asked: float = 0.0  # Unix time by our clock just before the server looked at itself
    packs: Sequence[Packed] = ()
    places: Sequence[Place] = ()  # of each pack, its application
    errors: Mapping[str, int] = field(default_factory=dict)  # failed reads by reason, since the exporter started
    last_success: float | None = None  # Unix time
    logins: Logins | None = None


class Flight:
    """A read that is under way, and those who wait for it."""

    __slots__ = ("counted", "done", "reading", "started")

    def __init__(self, started: float) -> None:
        self.started = started  # seconds of the reader's clock
        self.done = threading.Event()
        self.reading: Reading | None = None
        self.counted = False  # among the errors of scrapes


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
        self._waiting: SimpleQueue[Flight | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._errors = dict.fromkeys(REASONS, 0)
        self._last_success: float | None = None
        self._faults = Faults(_LOG)
        self.last: Reading | None = None

    def start(self) -> Flight:
        """Begin a read, or join the one that is under way.

        A read has the time of ``timeouts.scrape``, whoever asks: one impatient asker must not cost the others their read,
        nor the exporter its connection.
        """
        with self._lock:
            flight = self._flight
            if flight is not None and not flight.done.is_set():
                return flight
            flight = self._flight = Flight(self._clock())
        try:
            self._ready()
            self._waiting.put(flight)
        except RuntimeError:  # no more threads to be had
            flight.reading = self._failed(flight, "other", "the system gives no more threads", self._logins(0))
            flight.done.set()
        return flight

    def _ready(self) -> None:
        """See to it that there is a thread that reads: one for all reads, for to start one takes as long as to judge."""
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._work, name=f"pgleak-{self.target.name}", daemon=True)
            thread.start()
            self._thread = thread

    def _work(self) -> None:
        while flight := self._waiting.get():
            try:
                self._fly(flight)
            finally:
                flight.done.set()

    def finish(self, flight: Flight, deadline: float, *, scrape: bool = True) -> Reading:
        """Wait for a read, no longer than ``deadline`` (seconds of the clock) and a moment; never raises.

        The moment is shared by all reads of one deadline. For an asker that has to go before it ends, the read has failed:
        that counts, once for each read, and only where the asker is a scrape.
        """
        flight.done.wait(max(deadline + _GRACE - self._clock(), 0))
        reading = flight.reading or self._failed(flight, "timeout", "the read has not ended yet", self._logins(0))
        with self._lock:
            if scrape and reading.reason and not flight.counted:
                flight.counted = True
                self._errors[reading.reason] += 1
            return replace(reading, errors=dict(self._errors))

    def close(self) -> None:
        """Give the slot back and end the thread; a read that is under way ends by itself."""
        with self._lock:
            if self._flight is None or self._flight.done.is_set():
                self._connection.close()
            if self._thread is not None:
                self._thread = None
                self._waiting.put(None)

    def _fly(self, flight: Flight) -> None:
        deadline = flight.started + self._settings.timeouts.scrape
        try:
            reading = self._read(flight, deadline)
        except ReadError as error:
            reading = self._ended(flight, error.reason, error.detail, deadline)
        except Exception as error:  # noqa: BLE001  a fault of ours must show as data, not as a missing scrape
            self._faults.tell(f"server {self.target.name} cannot be read", error)
            reading = self._ended(flight, "other", f"internal error: {type(error).__name__}", deadline)
        flight.reading = self.last = reading

    def _read(self, flight: Flight, deadline: float) -> Reading:
        if self._canary:
            self._canary.start()
        connection = self._connection
        connection.ensure(deadline)
        asked = self._now()
        rows = connection.run("pgleak_activity", _ACTIVITY, deadline)
        with_sessions = connection.server_version >= _HAS_SESSION_COUNTERS
        connection.send("pgleak_server", _SERVER_WITH_SESSIONS if with_sessions else _SERVER, deadline)

        packs = activity.packed(rows)  # while the server works
        now = self._clock()
        places = self._namer.places(packs, now)
        applications = activity.summarise(packs, places, self._settings.thresholds)
        applications = self._namer.remember(applications, now)
        server = self._namer.bounded(activity.server(connection.receive(deadline)), now)
        self._last_success = self._now()
        used = activity.used(packs)
        with self._lock:
            self._voice.up(server, used)
        return Reading(
            name=self.target.name,
            duration=self._clock() - flight.started,
            ended=self._clock(),
            server=server,
            used=used,
            applications=applications,
            overflowed=self._namer.overflowed,
            combinations_overflowed=self._namer.combinations_overflowed,
            asked=asked,
            packs=packs,
            places=places,
            last_success=self._last_success,
            logins=self._logins(deadline - self._clock()),
        )

    def _logins(self, seconds: float) -> Logins | None:
        """Return what the canary knows, after so many seconds at most."""
        if self._canary is None:
            return None
        logins = self._canary.finish(seconds)
        with self._lock:
            self._voice.login(logins)
        return logins

    def _ended(self, flight: Flight, reason: str, detail: str, deadline: float) -> Reading:
        with self._lock:  # only now: a read that somebody could not wait for may still succeed
            self._voice.down(reason, detail)
        return self._failed(flight, reason, detail, self._logins(deadline - self._clock()))

    def _failed(self, flight: Flight, reason: str, detail: str, logins: Logins | None) -> Reading:
        return Reading(
            name=self.target.name,
            reason=reason,
            detail=detail,
            duration=self._clock() - flight.started,
            ended=self._clock(),
            last_success=self._last_success,
            logins=logins,
        )
