"""What is worth knowing beside leaks: what could not be seen, what is not judged yet, pools that do not fit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pgleak.pool.reading import STALE_AFTER
from pgleak.pool.suspects import PILE
from pgleak.postgres.check import REMEDIES
from pgleak.who.phrases import counted, duration, in_site
from pgleak.who.sight import sight, unmatched
from pgleak.who.unjudged import unjudged, waits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.who.report import Application, Report

_PIDS = 10  # of processes whose pools are leaked
_SITES = 3  # of those whose connections the garbage collector gave back
_SKIPPED = {
    "checksum": "damaged",
    "foreign": "that are none of pgleak's",
    "foreign_owner": "of another user (all processes must run as one user)",
    "malformed": "damaged",
    "not_a_file": "that are no regular files",
    "renamed": "renamed",
    "too_large": "too large",
    "truncated": "cut off",
    "unreadable": "that may not be read (run as the application's user, or as root)",
    "version": "of another version of pgleak (restart the application with this one)",
}


def notes(report: Report) -> Iterator[str]:
    """What is worth knowing beside leaks: what could not be seen, and about applications."""
    yield from about_watching(report)
    yield from about_applications(report)


def about_watching(report: Report) -> Iterator[str]:
    """What could not be seen."""
    yield from sight(report).hidden
    for server in report.servers:
        reason = server.reason.partition(":")[0]
        if reason in REMEDIES and reason != "slots_exhausted":
            yield f"{server.name}: {REMEDIES[reason]}"
        if reason == "slots_exhausted":
            yield (
                f"{server.name} is full and refuses ordinary roles; a `pgleak serve` that holds its connection still "
                "reads it: look at its page / and at /connections; or ask as a superuser, for whom slots are kept: --dsn"
            )
    if report.watch is not None:
        watch = report.watch
        if watch.stale:
            yield f"{watch.stale} of {watch.processes} processes hang: they live, and have stopped reporting"
        if watch.skipped:
            reasons = ", ".join(
                f"{count} {_SKIPPED.get(reason, reason)}" for reason, count in sorted(watch.skipped.items())
            )
            yield f"state files were passed over: {reasons}"
    yield from unmatched(report)


def about_applications(report: Report) -> Iterator[str]:
    """What is not judged yet, pools that do not fit, and leaks that come to an end by luck."""
    for application, how, young in unjudged(report):
        oldest = f"{'the oldest ' if len(young) > 1 else ''}{duration(waits(young[0]))}"
        yield (
            f"{application.name}: not judged yet: {len(young)} {'is' if len(young) == 1 else 'are'} {how}, {oldest}; "
            f"judged after {duration(young[0].limit)}"
        )
    for application in report.applications:
        yield from _at_work(application)
        yield from _about(application, report)


def _at_work(application: Application) -> Iterator[str]:
    """What takes long and is in use: no leak, and worth a word where the pool is tight."""
    if application.is_quiet:
        return
    busy = [each.checkout for each in application.connections if each.is_busy and each.checkout is not None]
    if not busy:
        return
    longest = max(busy, key=lambda held: held.age)
    where = in_site(longest.frames[0]) if longest.frames else longest.site
    oldest = "the longest " if len(busy) > 1 else ""
    yield (
        f"{application.name}: {counted(len(busy), 'connection')} held for long {'is' if len(busy) == 1 else 'are'} in use, "
        f"{oldest}for {duration(longest.age)} by {where}: no leak; pgleak.expected_hold() says that it is meant"
    )


def _tight(application: Application) -> Iterator[str]:
    """Pools in which requests wait or gave up: of one that is leaked, a larger one would be leaked, too."""
    found = [each for each in application.tight if each.waiting or each.timeouts]
    drained = [each for each in found if each.is_drained]
    if drained:
        leaked, used = sum(each.leaked for each in drained), sum(each.used for each in drained)
        waiting = sum(each.waiting for each in drained)
        pids = sorted({each.process.pid for each in drained})
        told = ", ".join(map(str, pids[:_PIDS])) + (f" and {len(pids) - _PIDS} more" if len(pids) > _PIDS else "")
        part = (
            "the only connection" if used == 1 else f"{'all' if leaked == used else f'{leaked} of'} {used} connections"
        )
        waits = f"{counted(waiting, 'request')} {'waits' if waiting == 1 else 'wait'} in vain, " if waiting else ""
        yield (
            f"{application.name}: process{'' if len(pids) == 1 else 'es'} {told}: {part} of "
            f"{'its pool' if len(drained) == 1 else f'{len(drained)} pools'} {'is' if leaked == 1 else 'are'} leaked, "
            f"{waits}{sum(each.timeouts for each in drained)} gave up so far"
        )
    small = [each for each in found if not each.is_drained]
    if small:
        limits = sorted({f"{each.connections_max:g}" for each in small}, key=float)
        most = " to ".join(dict.fromkeys((limits[0], limits[-1]))) + f" connection{'' if limits[-1] == '1' else 's'}"
        pools = (
            f"the pool of process {small[0].process.pid} ({most} at most) is too small, or its"
            if len(small) == 1
            else f"{len(small)} pools ({most} at most each) are too small, or their"
        )
        yield (
            f"{application.name}: {counted(sum(each.waiting for each in small), 'request')} waiting for a connection now, "
            f"{sum(each.timeouts for each in small)} gave up so far: {pools} connections held too long"
        )


def _about(application: Application, report: Report) -> Iterator[str]:
    yield from _tight(application)
    if application.once_used >= PILE:  # an alert may have spoken of them
        yield (
            f"{application.name}: {application.once_used} of its {len(application.connections)} connections lie in its pools and "
            "were used once and never again: it is at rest, or a few engines too many are made in each of its processes"
        )
    server = report.server(application.server)
    most = application.connections_max
    if server is not None and server.usable and server.usable < most < math.inf:
        yield (f"{application.name}: its pools may open {most:g} connections, and {server.name} takes {server.usable}")
    # Those lines that are found to leak now are told with it.
    leaking = {each.checkout.site for each in application.suspects if each.checkout is not None}
    returned = {site: count for site, count in application.returned.items() if site not in leaking}
    if returned:
        worst = sorted(returned, key=lambda site: -returned[site])[:_SITES]
        yield (
            f"{application.name}: the garbage collector had to give back {counted(sum(returned.values()), 'connection')} that "
            f"nobody closed, taken in {', '.join(f'{site} ({returned[site]})' for site in worst)}: each was leaked until it ran"
        )
    if application.is_quiet or not application.processes:
        return
    unknown = sum(
        each.holder == "unknown" and not each.doubt and (each.age is None or each.age > STALE_AFTER)
        for each in application.connections
    )
    if unknown:
        total = counted(len(application.connections), "connection")
        yield (
            f"{application.name}: {unknown} of its {total} on {application.server} {'is' if unknown == 1 else 'are'} "
            "known to no process that reports; either some of its processes do not, or nobody holds them"
        )
