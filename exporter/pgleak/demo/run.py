"""``pgleak demo``: a PostgreSQL, a shop that leaks, two neighbours that do not, and the exporter that tells them apart."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pgleak.demo.binaries import PostgresNotFoundError
from pgleak.demo.child import ChildEndedError
from pgleak.demo.embedded import LOOPBACK
from pgleak.demo.growth import History, Outlook
from pgleak.demo.scratch import PostgresStartError
from pgleak.demo.screen import Screen, block, duration, summary
from pgleak.demo.stage import SHOP, THRESHOLDS, Stage, set_up
from pgleak.demo.traffic import Traffic, status
from pgleak.demo.view import View, scrape
from pgleak.settings import Listen, Thresholds

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

_INTERVAL = 1.0  # seconds between two scrapes
_BLOCK_INTERVAL = 5.0  # seconds between two blocks where they cannot be redrawn in place
_START_TIMEOUT = 60.0


def run(seconds: float | None = None) -> int:
    """Show the demo until Ctrl-C, SIGTERM, SIGHUP, or for ``seconds``; return the exit code.

    Nothing is left running and no file is left, whichever way it ends.
    """
    screen = Screen()
    try:
        with _Ending() as ending:
            screen.say("pgleak demo: starting PostgreSQL, three applications and the exporter ...")
            with set_up() as stage:
                _Show(stage, screen, ending).run(seconds)
    except (ChildEndedError, PostgresNotFoundError, PostgresStartError) as error:
        screen.say("", f"pgleak demo: {error}")
        return 1
    except BrokenPipeError:
        # Whoever read our output, "head" perhaps, has seen enough. Python flushes once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _own_command() -> str:
    """Return what to type for ``pgleak`` in another terminal, where no virtual environment is active."""
    path = Path(sys.executable).with_name("pgleak")
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


class _Ending:
    """Turns the signals that end a program into a flag, so that no clean-up is interrupted halfway."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.is_due = False

    def __enter__(self) -> _Ending:  # noqa: PYI034  typing.Self is not in Python 3.10
        self._before = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.is_due = True

    def wait(self, seconds: float) -> bool:
        """Wait for the end, no longer than this; say whether it is due."""
        # No threading.Event: setting one in a signal handler can block on its own lock.
        deadline = time.monotonic() + seconds
        while not self.is_due and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
        return self.is_due


class _Show:
    def __init__(self, stage: Stage, screen: Screen, ending: _Ending) -> None:
        self._stage = stage
        self._screen = screen
        self._ending = ending
        self._history = History()
        self._view: View | None = None
        self._outlook = Outlook()
        self._full_since: float | None = None

    def run(self, seconds: float | None) -> None:
        steps = (self._stage.exporter.listens, self._shop_answers, self._look, self._stage.prometheus.is_settled)
        if not all(map(self._wait_for, steps)):
            return
        self._screen.say(*self._introduction(), "")
        traffic = Traffic(LOOPBACK, self._stage.shop_port)
        traffic.start()
        start = time.monotonic()
        next_block = start
        try:
            while seconds is None or time.monotonic() < start + seconds:
                self._stage.check()
                self._look()
                elapsed = time.monotonic() - start
                if self._screen.is_live or time.monotonic() >= next_block:
                    next_block += _BLOCK_INTERVAL
                    line = self._stage.leaking_line()
                    self._screen.draw(
                        block(self._view, self._outlook, traffic.requests, elapsed, self._full_since, line)
                    )
                left = start + seconds - time.monotonic() if seconds is not None else _INTERVAL
                if self._ending.wait(min(_INTERVAL, left)):
                    break
        finally:
            traffic.stop()
        elapsed = time.monotonic() - start
        line = self._stage.leaking_line()
        self._screen.say("", *summary(self._view, self._outlook, self._full_since, elapsed, line))

    def _look(self) -> bool:
        self._view = scrape(LOOPBACK, self._stage.exporter.port, timeout=5)
        if self._view is None or not self._view.up:
            return False
        self._history.add(self._view)
        self._outlook = self._history.outlook()
        self._full_since = (self._full_since or self._view.time) if self._view.is_full else None
        return "shop" in self._view.applications

    def _shop_answers(self) -> bool:
        return status(LOOPBACK, self._stage.shop_port, "GET", "/orders") == 200

    def _wait_for(self, condition: Callable[[], bool]) -> bool:
        """Wait until a condition holds; False when we are to end before it does."""
        deadline = time.monotonic() + _START_TIMEOUT
        while not condition():
            self._stage.check()
            if time.monotonic() > deadline:
                said = "\n".join(f"{child.name} said:\n{child.said()}" for child in self._stage.children)
                raise ChildEndedError(f"no start within {_START_TIMEOUT:.0f} s\n{said}")
            if self._ending.wait(0.1):
                return False
        return not self._ending.is_due

    def _introduction(self) -> list[str]:
        stage, usable = self._stage, self._view.usable if self._view else 0
        address = f"http://{LOOPBACK}:{stage.exporter.port}"
        taken = f"  (port {Listen().port} is taken)" if stage.exporter.port != Listen().port else ""
        stuck, never, passed = (
            f"{duration(scaled)} (default {duration(default)})"
            for scaled, default in (
                (THRESHOLDS.idle_in_transaction, Thresholds().idle_in_transaction),
                (THRESHOLDS.never_reused, Thresholds().never_reused),
                (THRESHOLDS.passed_over, Thresholds().passed_over),
            )
        )
        return [
            "",
            f"exporter    {address}/{taken}",
            f"metrics     {address}/metrics: all that is shown below is in there",
            *stage.prometheus.introduction(),
            f"who holds   {_own_command()} who --diagnose \\",
            f"            --config {stage.exporter.settings_file}",
            f"database    PostgreSQL {stage.version} on {LOOPBACK}:{stage.server.port}, {usable} connections usable",
            f"the leak    is in {SHOP}",
            "beside it   billing, a busy pool, and reports, which opens a connection for",
            "            each report and in between has none",
            "thresholds  scaled down, so that a connection is a suspect within the minute:",
            f"            stuck in transaction {stuck}, never reused",
            f"            {never}, passed over {passed}",
        ]
