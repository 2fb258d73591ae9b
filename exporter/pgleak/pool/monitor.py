"""The one thread of pgleak in an application: looks for suspects, tells of each once, and of those that come back."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from pgleak.pool.survey import survey
from pgleak.pool.suspects import SEVERAL, judge, piled_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgleak.pool.ledger import Ledger
    from pgleak.pool.snapshot import Backend, Checkout, Frame, ProcessSnapshot
    from pgleak.pool.suspects import Pile, Verdict

log = logging.getLogger("pgleak.pool")

_TICK = 1.0  # seconds
_LINES_PER_MINUTE = 20
_PLACES = 1_000  # whose first line does not wait


class Reporter:
    """Remembers who is under suspicion. Used by one thread at a time."""

    def __init__(self, ledger: Ledger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._clock = clock
        self._known: dict[int, Verdict] = {}
        self._piles: dict[tuple[str, str], int] = {}  # how high they were when they were last spoken of
        self._orphans: dict[tuple[int | None, float], bool] = {}  # whether they were spoken of
        self._lines: list[float] = []
        self._places: set[str] = set()  # that were spoken of
        self._unsaid = 0
        self.on_suspect: Callable[[Verdict], None] | None = None

    def report(self, snapshot: ProcessSnapshot) -> None:
        """Count and tell what is new in this snapshot: suspects, and suspects that came back."""
        verdicts = {verdict.checkout.number: verdict for verdict in judge(snapshot)}
        held = {checkout.number for pool in snapshot.pools for checkout in pool.checkouts}
        for number, verdict in list(self._known.items()):
            if number not in held:
                del self._known[number]
                self._came_back(verdict, snapshot)
            elif number in verdicts:
                self._known[number] = verdicts[number]
        for number, verdict in verdicts.items():
            if number not in self._known:
                self._known[number] = verdict
                self._suspected(verdict)
        self._left_behind(snapshot)
        for pile in piled_up(snapshot):
            key = pile.pool, pile.made.site
            if pile.made.unused >= 2 * self._piles.get(key, SEVERAL):
                self._piles[key] = pile.made.unused
                self._say(logging.WARNING, describe_pile(pile))

    def _left_behind(self, snapshot: ProcessSnapshot) -> None:
        """Say once of each connection that stays open after its pool's end who used it last."""
        orphans = {
            (orphan.pid, orphan.opened): (pool.name, frames)
            for pool in snapshot.pools
            for orphan, frames in zip(pool.orphans, pool.orphaned_at, strict=False)
        }
        for orphan, (pool_name, frames) in orphans.items():
            if self._orphans.get(orphan) is False:  # seen before, so not just about to be collected
                place = f"site={frames[0].site} ({frames[0].file}:{frames[0].line})" if frames else "site=(unknown)"
                text = (
                    f"connection stays open after its pool was disposed of (orphaned), pool={pool_name}, last used at"
                )
                self._say(logging.WARNING, f"{text} {place}, backend={orphan[0] or 'unknown'}")
        self._orphans = {orphan: orphan in self._orphans for orphan in orphans}

    def _suspected(self, verdict: Verdict) -> None:
        pool = self._ledger.pools.get(verdict.pool)
        site = verdict.checkout.site
        if pool is not None:
            pool.suspects[site] = pool.suspects.get(site, 0) + 1
            pool.suspects_returned.setdefault(site, 0)
        self._say(logging.WARNING, describe(verdict), verdict.pool + _place(verdict.checkout))
        callback = self.on_suspect
        if callback is not None:
            try:
                callback(verdict)
            except BaseException:  # sys.exit() too would end the thread, and with it all watching
                self._ledger.errors += 1
                log.exception("the on_suspect callback failed")

    def _came_back(self, verdict: Verdict, snapshot: ProcessSnapshot) -> None:
        pool = self._ledger.pools.get(verdict.pool)
        checkout = verdict.checkout
        lost = pool is not None and checkout.number in pool.ended
        if pool is not None and not lost:
            pool.suspects_returned[checkout.site] = pool.suspects_returned.get(checkout.site, 0) + 1
        how = "ended without being returned by its holder" if lost else "was returned"
        held = max(snapshot.taken - checkout.checked_out_at, checkout.age)
        self._say(
            logging.INFO,
            f"{checkout.kind} {how} after {held:.0f} s: pool={verdict.pool}, {_place(checkout)}, {_backend(checkout.backend)}",
        )

    def _say(self, level: int, text: str, place: str = "") -> None:
        """At most so many lines a minute; but the first of a place is not left out for those of others."""
        now = self._clock()
        self._lines = [then for then in self._lines if now - then < 60]
        is_first = bool(place) and place not in self._places and len(self._places) < _PLACES
        if len(self._lines) >= _LINES_PER_MINUTE and not is_first:
            self._unsaid += 1
            return
        if is_first:
            self._places.add(place)
        self._lines.append(now)
        if self._unsaid:
            text += f" ({self._unsaid} earlier messages were left out)"
            self._unsaid = 0
        log.log(level, "%s", text)


def describe(verdict: Verdict) -> str:
    """One line that names the code, for the log."""
    checkout = verdict.checkout
    owner = checkout.owner
    what = f"{checkout.kind} held for {checkout.age:.0f} s (limit {verdict.limit:.0f} s, {verdict.cause})"
    if verdict.cause == "inherited":
        what += " by a process that did not open it, but was forked with it"
    parts = [
        what,
        f"pool={verdict.pool}",
        _place(checkout),
        _backend(checkout.backend),
        f"{owner.kind}={owner.name!r} ({owner.state})",
    ]
    if checkout.context:
        parts.append(f"context={checkout.context!r}")
    if checkout.expected is not None:
        parts.append(f"expected_hold={checkout.expected.name!r}")
    if checkout.standing:
        parts.append(f"now at {_line(checkout.standing[0])}")
    if len(checkout.frames) > 1:
        parts.append("called from " + " < ".join(_line(frame) for frame in checkout.frames[1:]))
    return ", ".join(parts)


def describe_pile(pile: Pile) -> str:
    """One line that names the code which makes an engine per call."""
    first, *callers = pile.made.frames
    line = (
        f"{pile.made.unused} of {pile.made.engines} engines made by one place hold connections that are not used again "
        f"(engine_per_call), pool={pile.pool}, site={first.site} ({first.file}:{first.line})"
    )
    return line + (", called from " + " < ".join(_line(frame) for frame in callers) if callers else "")


def _backend(backend: Backend) -> str:
    return f"backend={backend.pid if backend.pid is not None else 'unknown'}"


def _place(checkout: Checkout) -> str:
    return f"site={checkout.site}" + (
        f" ({checkout.frames[0].file}:{checkout.frames[0].line})" if checkout.frames else ""
    )


def _line(frame: Frame) -> str:
    return f"{frame.site} ({frame.file}:{frame.line})"


class Monitor:
    """Runs the reporter, and whatever else is due, on a daemon thread of its own; under gevent's patch, a greenlet."""

    def __init__(self, ledger: Ledger, *, tick: float = _TICK) -> None:
        self._ledger = ledger
        self._tick = tick
        self._jobs: list[_Job] = []
        self.reporter = Reporter(ledger)
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._starting = threading.Lock()

    def every(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call this on the monitor's thread, again and again. What it raises is counted and forgotten."""
        self._jobs.append(_Job(seconds, callback))

    def forget(self, callback: Callable[[], None]) -> None:
        self._jobs = [job for job in self._jobs if job.callback is not callback]

    def start(self) -> None:
        """Start the thread, once per process. Never raises: without a thread there are still metrics."""
        # Never waits: this runs where the application asks for its first connection, perhaps in many threads at once.
        if self._thread is not None or not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                self._stop = threading.Event()
                thread = threading.Thread(target=self._run, args=(self._stop,), name="pgleak-monitor", daemon=True)
                self._thread = thread
                thread.start()
        except Exception:  # noqa: BLE001 - RuntimeError: can't start new thread; at interpreter shutdown, for example
            self._thread = None
            self._ledger.errors += 1
        finally:
            self._starting.release()

    def stop(self) -> None:
        """End the thread and wait for it a little."""
        thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(2)

    def forked(self) -> None:
        """In the child: the parent's thread is not here. Locks may be held by threads that are gone, so all are new."""
        self._thread = None
        self._stop = threading.Event()
        self._starting = threading.Lock()
        on_suspect = self.reporter.on_suspect
        self.reporter = Reporter(self._ledger)
        self.reporter.on_suspect = on_suspect

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self._tick):
            self.tick()

    def tick(self) -> None:
        """One round: what the thread does once a second."""
        try:
            self.reporter.report(survey(self._ledger))
        except Exception:  # noqa: BLE001 - the next round may do better
            self._ledger.errors += 1
        now = time.monotonic()
        for job in self._jobs:
            if now >= job.due:
                job.due = now + job.seconds
                try:
                    job.callback()
                except Exception:  # noqa: BLE001
                    self._ledger.errors += 1


class _Job:
    __slots__ = ("callback", "due", "seconds")

    def __init__(self, seconds: float, callback: Callable[[], None]) -> None:
        self.seconds = seconds
        self.callback = callback
        self.due = 0.0
