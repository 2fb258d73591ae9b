"""Numbers, durations and places in words, for a terminal and for the page."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from pgleak.who.report import place

if TYPE_CHECKING:
    from pgleak.pool.snapshot import Frame


def in_site(frame: Frame) -> str:
    """As in `jobs.py:9 in shop.jobs:turn`."""
    return f"{place(frame)} in {frame.site}"


def counted(number: int, noun: str) -> str:
    """1 connection, 2 connections, 2 processes."""
    plural = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{plural}"


def duration(seconds: float) -> str:
    """Two units at most: 41 s, 7 min, 2 h 40 min, 3 d 4 h. One minute would be too coarse and is told in seconds."""
    whole = max(round(seconds), 0)
    minutes = whole // 60
    if whole < 120:
        return f"{whole} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes and hours < 10 else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours and days < 10 else f"{days} d"


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """In lines of that width, the second and later ones indented."""
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)


def printable(text: str) -> str:
    """Names come from clients and files: nothing in them may move a terminal's cursor."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
