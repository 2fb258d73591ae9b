"""What the demo shows: pure functions from data to lines, and a terminal that redraws them in place."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgleak.demo.growth import Outlook
    from pgleak.demo.view import Application, View

_WIDTH = 78
_BAR = 24


@dataclass(frozen=True, slots=True)
class Requests:
    """What became of the requests that the demo sent to the shop."""

    answered: int = 0
    failed: int = 0


def block(
    view: View | None, outlook: Outlook, requests: Requests, elapsed: float, full_since: float | None, line: str = ""
) -> list[str]:
    """Describe one moment. The line of an application that leaks begins with ``!``."""
    if view is None or not view.up:
        state = "the exporter does not answer" if view is None else "the exporter cannot read the server"
        return [state, "", _footer(requests, elapsed)]
    lines = [f"  {'application':<16}{'connections':>12}{'growth/min':>12}   suspects"]
    # Not by size, which would have lines change places all the time.
    order = sorted(view.applications.values(), key=lambda each: (not each.suspected, each.name))
    for application in order:
        growth = outlook.per_minute.get(application.name)
        shown = "..." if growth is None else f"{round(growth, 1) + 0.0:+.1f}"
        mark = "!" if application.suspected else " "
        lines.append(
            f"{mark} {application.name:<16.16}{application.connections:>12}{shown:>12}   {evidence(application)}"
        )
    lines += culprits(view, line)
    lines += ["", *_capacity(view, outlook, full_since), _footer(requests, elapsed)]
    return lines


def culprits(view: View, line: str) -> list[str]:
    """Name the code that holds connections for too long; ``line`` is its place, where it is known."""
    place = f" ({line})" if line else ""
    return [f"!   {holder.connections} held by {holder.site}{place}" for holder in view.holders[:1]]


def evidence(application: Application) -> str:
    """Name the suspects by kind, as in ``12 stuck in transaction``."""
    kinds = (f"{number} {kind.replace('_', ' ')}" for kind, number in application.suspects.items() if number)
    return ", ".join(kinds) or "0"


def _capacity(view: View, outlook: Outlook, full_since: float | None) -> list[str]:
    filled = min(_BAR, round(_BAR * view.used / view.usable)) if view.usable else 0
    line = f"server: {view.used} of {view.usable} taken [{'#' * filled}{'.' * (_BAR - filled)}]"
    if full_since is not None:
        logins = "ordinary logins are refused" if view.login_succeeds is False else "no slot is left"
        return [
            f"{line} FULL since {clock(full_since)}",
            f"{logins}; the exporter reports on, over its held connection",
        ]
    if outlook.full_at is None:
        return [line, "full at: no application with suspects grows so far"]
    return [line, f"full at {clock(outlook.full_at)}, {distance(outlook.full_at - view.time)}, if nobody acts"]


def _footer(requests: Requests, elapsed: float) -> str:
    return f"shop: {requests.answered} requests answered, {requests.failed} failed     {elapsed:.0f} s   Ctrl-C ends"


def clock(moment: float) -> str:
    """Return the local clock time."""
    return time.strftime("%H:%M:%S", time.localtime(moment))


def distance(seconds: float) -> str:
    """Say how far away a moment is, in the unit that fits."""
    if seconds < 90:
        return f"in {max(seconds, 0):.0f} s"
    return f"in {seconds / 60:.0f} min" if seconds < 5400 else f"in {seconds / 3600:.0f} h"


def duration(seconds: float) -> str:
    """Say how long something takes, in the largest unit that divides it."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:g} s"


def summary(view: View | None, outlook: Outlook, full_since: float | None, elapsed: float, line: str = "") -> list[str]:
    """Say what was seen, in a few sentences."""
    seen = f"After {elapsed:.0f} s:"
    if view is None or not view.up:
        return [f"{seen} the exporter has no figures."]
    suspicious = [each for each in view.applications.values() if each.suspected]
    if not suspicious:
        return [f"{seen} no application has suspects yet."]
    lines = []
    for each in suspicious:
        growth = outlook.per_minute.get(each.name)
        pace = f", {growth:+.1f} connections a minute" if growth is not None else ""
        lines.append(f"{seen} {each.name} leaks: {each.suspected} of its {each.connections} connections are suspects")
        lines.append(f"({evidence(each)}){pace}.")
    lines += [
        f"The line: {line or holder.site} ({holder.site}) took the {holder.connections} that never came back."
        for holder in view.holders[:1]
    ]
    if full_since is not None:
        lines.append(f"The server is full since {clock(full_since)}, and the exporter reports all the same.")
    elif outlook.full_at is not None:
        lines.append(f"The server would be full at {clock(outlook.full_at)}, {distance(outlook.full_at - view.time)}.")
    # Names in brackets stand for what has none, such as a connection that is still logging in.
    healthy = sorted(
        each.name for each in view.applications.values() if not each.suspected and not each.name.startswith("(")
    )
    return [*lines, f"No suspects: {', '.join(healthy)}."]


class Screen:
    """A terminal on which a block of lines is redrawn in place, or a plain stream that gets one now and then."""

    def __init__(
        self,
        stream: TextIO | None = None,
        environ: Mapping[str, str] = os.environ,
        size: Callable[[], tuple[int, int]] = shutil.get_terminal_size,
    ) -> None:
        self._size = size  # columns and lines
        self._drawn_at = size()
        self._stream = stream or sys.stdout
        self.is_live = self._stream.isatty() and environ.get("TERM", "dumb") != "dumb"
        self._is_coloured = self.is_live and not environ.get("NO_COLOR")
        self._drawn = 0

    def say(self, *lines: str) -> None:
        """Print lines that stay."""
        self._drawn = 0
        print(*lines, sep="\n", file=self._stream, flush=True)

    def draw(self, lines: Sequence[str]) -> None:
        """Replace the last block; on a plain stream, add this one."""
        if not self.is_live:
            self.say("", *lines)
            return
        size = columns, rows = self._size()
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        if size != self._drawn_at:
            up = "\x1b[H\x1b[2J"  # lines may have been wrapped since, so that nobody knows how far up the block began
        fitting = lines[: max(rows - 1, 1)]  # a block that scrolled could not be drawn over
        width = max(min(_WIDTH, columns - 1), 1)
        text = "".join(f"{self._coloured(line[:width])}\x1b[K\n" for line in fitting)
        print(f"{up}{text}\x1b[J", end="", file=self._stream, flush=True)
        self._drawn, self._drawn_at = len(fitting), size

    def _coloured(self, line: str) -> str:
        if self._is_coloured and (line.startswith("!") or "FULL" in line):
            return f"\x1b[1;31m{line}\x1b[0m"
        return line
