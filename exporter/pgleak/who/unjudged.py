"""What may turn out to be leaked and is not judged yet: nobody may say before that it is not. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.who.connection import Connection
    from pgleak.who.report import Application, Report

WORTH_SAYING = 10.0  # seconds; requests that are answered take less


def unjudged(report: Report) -> Iterator[tuple[Application, str, tuple[Connection, ...]]]:
    """By application and in words: the longest first."""
    for application in report.applications:
        if application.is_quiet:
            continue
        young = [each for each in application.connections if each.limit and not each.is_used and not each.is_suspect]
        # A block that says how long it may take says that this is in order.
        held = [each for each in young if each.checkout is not None and each.checkout.expected is None]
        left = [each for each in young if each.process is None and each.state.startswith("idle in transaction")]
        for words, group in (("held", held), ("idle in a transaction", left)):
            found = sorted((each for each in group if waits(each) >= WORTH_SAYING), key=lambda each: -waits(each))
            if found:
                yield application, words, tuple(found)


def waits(connection: Connection) -> float:
    """Seconds that count towards its limit."""
    held = connection.checkout
    if held is not None:
        return held.owner.dead_for if held.owner.state == "dead" else held.age
    return connection.unused or 0.0
