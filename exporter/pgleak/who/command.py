"""`pgleak who`: looks again and again, or once, and shows what is held by whom."""

from __future__ import annotations

import json
import logging
import math
import time
from functools import partial
from typing import TYPE_CHECKING

from pgleak.exporter import Exporter
from pgleak.holders.coverage import Coverage
from pgleak.who.diagnosis import diagnose
from pgleak.who.plain import plain
from pgleak.who.screen import Screen
from pgleak.who.sight import sight
from pgleak.who.table import HEIGHT, table
from pgleak.who.words import tell

if TYPE_CHECKING:
    from typing import TextIO

    from pgleak.settings import Settings
    from pgleak.who.options import Options
    from pgleak.who.report import Report


def run(settings: Settings, options: Options, stream: TextIO) -> int:
    """Show it. Returns the exit code: 1 when there was nothing to judge by."""
    # What goes wrong is said in the report; a log line would tear the table apart.
    logging.getLogger("pgleak").addHandler(logging.NullHandler())
    logging.getLogger("pgleak").propagate = False
    screen = Screen(stream)
    once = options.once or options.as_json or not screen.is_live
    # With one look there is no second one to confirm what the first one found.
    coverage = Coverage(settings.reporting_applications, patience=0) if once else None
    exporter = Exporter(settings, coverage=coverage)
    try:
        while True:
            seen = exporter.report(time.monotonic() + settings.timeouts.scrape)
            if once:
                _say(seen, options, screen, stream)
                return _code(seen)
            screen.show(partial(_lines, seen, options), options.interval)
    except KeyboardInterrupt:
        return 0
    finally:
        exporter.close()


def _say(seen: Report, options: Options, screen: Screen, stream: TextIO) -> None:
    if options.as_json:
        json.dump(plain(seen, diagnose(seen)), stream, indent=2)
        stream.write("\n")
    else:
        screen.say(_lines(seen, options, screen.width, math.inf))  # what scrolls, or goes into a file, has room for all


def _lines(seen: Report, options: Options, width: int, height: float = HEIGHT) -> list[str]:
    findings = diagnose(seen)
    if options.in_words:
        return tell(seen, findings, width)
    return table(seen, findings, everything=options.everything, width=width, height=height)


def _code(seen: Report) -> int:
    """A server that is down is a finding, as long as there is something else to judge by."""
    return 1 if sight(seen).is_blind and not diagnose(seen).diagnoses else 0
