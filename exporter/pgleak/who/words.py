"""A diagnosis in words, for a person who has to act now: pure, text only, at most as wide as asked."""

from __future__ import annotations

import math
import textwrap
import time
from typing import TYPE_CHECKING

from pgleak.pool.reading import STALE_AFTER
from pgleak.postgres.check import NEARLY_FULL, REMEDIES
from pgleak.who.report import place
from pgleak.who.sight import cannot_be_read, sight, unmatched
from pgleak.who.unjudged import unjudged, waits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.pool.snapshot import Checkout, Frame
    from pgleak.who.diagnosis import Diagnosis, Findings, Outlook
    from pgleak.who.report import Application, Report
    from pgleak.who.room import ServerState

_CALLERS = 5  # of one line, the most frequent
_SITES = 3  # of those whose connections the garbage collector gave back
_SURE = {
    "certain": "certain: this was seen",
    "likely": "likely: its traces were seen",
    "possible": "possible: seen from the server alone",
}
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


def tell(report: Report, findings: Findings, width: int = 80) -> list[str]:
    """Say what is wrong, or that nothing is."""
    lines: list[str] = []
    seen = sight(report)
    if not seen.is_blind:
        for server in report.servers:
            if server.reason:
                lines += [*wrapped(cannot_be_read(server, report), width, "  "), ""]
    for diagnosis in findings.diagnoses:
        lines += [*_one(diagnosis, report, findings, width), ""]
    told_of = {each.server for each in findings.diagnoses if not each.ended}
    for server in report.servers:
        if server.name not in told_of and server.usable and server.used >= NEARLY_FULL * server.usable:
            lines += [*wrapped(_crowd(server, report), width, "  "), ""]
    if not findings.diagnoses:
        if seen.is_blind:
            lines += wrapped(f"Cannot tell: {'; '.join(seen.unseen)}.", width, "  ")
        else:
            start = f"{seen.headline.capitalize()}." if seen.unseen or seen.waits else "Nothing leaks."
            lines += [*wrapped(start + _seen(report), width), ""]
    told = seen.hidden if seen.is_blind and not findings.diagnoses else ()
    for note in notes(report):
        if note in told:
            continue
        lines += wrapped(f"Note: {note}", width, "  ")
    while lines and not lines[-1]:
        lines.pop()
    return [printable(line) for line in lines]


def _one(diagnosis: Diagnosis, report: Report, findings: Findings, width: int) -> Iterator[str]:
    yield from wrapped(_heading(diagnosis), width)
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(report.at - diagnosis.since))
    how_fast = "" if diagnosis.ended else ", " + (how_fast_in_words(diagnosis) or "too early to say how fast")
    yield from _field("since", f"{began} ({duration(diagnosis.since)} ago){how_fast}", width)
    server = report.server(diagnosis.server)
    if server is not None and server.usable and not diagnosis.ended:
        when = _when(server.used, server.usable, findings.outlook(server.name))
        yield from _field("server", f"{server.used} of {server.usable} usable connections taken{when}", width)
        for limit in server.limits:
            if diagnosis.share(limit):
                when = _when(limit.used, limit.most, findings.outlook(server.name, limit.label))
                yield from _field(
                    "limit", f"{limit.label}: {limit.used} of {limit.most} connections taken{when}", width
                )
    yield from _field("cause", f"{diagnosis.cause.what} ({_SURE[diagnosis.cause.sure]})", width)
    if diagnosis.callers:
        yield from _field("line", _frame(diagnosis.frames[0]), width)
        told = ", ".join(f"{count}x {_frame(frame)}" for frame, count in diagnosis.callers[:_CALLERS])
        others = len(diagnosis.callers) - _CALLERS
        yield from _field("from", told + (f", and {counted(others, 'other place')}" if others > 0 else ""), width)
    elif diagnosis.frames:
        yield from _field("line", " < ".join(_frame(frame) for frame in diagnosis.frames), width)
    else:
        yield from _field("line", "not known: no process reports it (PGLEAK_DIR, --pool-dir)", width)
    held = diagnosis.example
    if held is not None:
        yield from _field("owner", owner_in_words(held), width)
        if held.context:
            yield from _field("serving", held.context, width)
    if diagnosis.returned:
        more = f"{counted(diagnosis.returned, 'connection')} taken there and never closed"
        yield from _field("besides", f"the garbage collector has given back {more}", width)
    if diagnosis.hung:
        yield from _field("process", "hangs: it has stopped reporting", width)
    yield from _field("change", diagnosis.cause.change, width)


def _crowd(server: ServerState, report: Report) -> str:
    """Of a server that is nearly full, whether anything leaks or not."""
    sizes = [(len(each.connections), each.name) for each in report.applications if each.server == server.name]
    most, name = max(sizes, default=(0, ""))
    taken = f"{server.name}: {server.used} of {server.usable} usable connections taken"
    return f"{taken}{_when(server.used, server.usable, None)}{f'; most, {most}, by {name}' if most else ''}."


def _heading(diagnosis: Diagnosis) -> str:
    if diagnosis.ended:
        return f"{diagnosis.application} on {diagnosis.server}: {ended_in_words(diagnosis)}."
    share = f"{diagnosis.connections} of its {counted(diagnosis.total, 'connection')}"
    if diagnosis.is_guess:
        seem = "seems" if diagnosis.connections == 1 else "seem"
        return f"{diagnosis.application} may leak on {diagnosis.server}: {share} {seem} not to come back."
    if diagnosis.is_leak:
        come = "does" if diagnosis.connections == 1 else "do"
        return f"{diagnosis.application} leaks on {diagnosis.server}: {share} {come} not come back."
    used = ", and uses them" if diagnosis.is_in_use else ""
    used = ", and uses it" if used and diagnosis.connections == 1 else used
    return f"{diagnosis.application} holds {share} on {diagnosis.server} for long{used}."


def ended_in_words(diagnosis: Diagnosis) -> str:
    """As in `2 slots of pool x are held on connections that the server has ended: restart process 7`."""
    pools = sorted({each.pool for each in diagnosis.members})
    pids = sorted({each.process.pid for each in diagnosis.members if each.process is not None})
    one = diagnosis.connections == 1
    return (
        f"{counted(diagnosis.connections, 'slot')} of pool {', '.join(pools)} {'is' if one else 'are'} held on "
        f"{'a connection' if one else 'connections'} that the server has ended: restart process {', '.join(map(str, pids))}"
    )


def owner_in_words(held: Checkout) -> str:
    """As in `thread 'worker-1' lives and stands at jobs.py:9 in shop.jobs:turn`."""
    owner = f"{held.owner.kind} {held.owner.name!r}"
    if held.owner.state == "dead":
        return f"{owner} has ended"
    return f"{owner} lives{f' and stands at {_frame(held.standing[0])}' if held.standing else ''}"


def how_fast_in_words(diagnosis: Diagnosis) -> str:
    """As in `+4.0 an hour`; empty when it is too early to say."""
    if diagnosis.pace is None:
        return ""
    if diagnosis.pace.has_stopped:
        return f"no new ones: the last {duration(diagnosis.pace.last)} ago"
    return f"{diagnosis.pace.per_hour:+.1f} an hour"


def _when(used: int, most: int, outlook: Outlook | None) -> str:
    if used >= most:
        return ", full now"
    return "" if outlook is None else f", full in {duration(outlook.seconds)} if nobody acts"


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
    where = _frame(longest.frames[0]) if longest.frames else longest.site
    oldest = "the longest " if len(busy) > 1 else ""
    yield (
        f"{application.name}: {counted(len(busy), 'connection')} held for long {'is' if len(busy) == 1 else 'are'} in use, "
        f"{oldest}for {duration(longest.age)} by {where}: no leak; pgleak.expected_hold() says that it is meant"
    )


def _about(application: Application, report: Report) -> Iterator[str]:
    if application.waiting or application.timeouts:
        yield (
            f"{application.name}: {counted(application.waiting, 'request')} waiting for a connection now, "
            f"{application.timeouts} gave up so far: its pools ({application.connections_max:g} connections at most) are too small, or their connections held too long"
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


def _seen(report: Report) -> str:
    connections = sum(len(each.connections) for each in report.applications)
    text = f" Looked at: {counted(connections, 'connection')} of {counted(len(report.applications), 'application')}"
    if report.watch is not None and report.watch.processes:
        return f"{text}, with {counted(report.watch.processes, 'process')} reporting their pools."
    return f"{text}, from the server alone: a leak shows there when connections have gone unused for a while."


def _field(name: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=f"  {name:<9}", subsequent_indent=" " * 11, break_on_hyphens=False)


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """In lines of that width, the second and later ones indented."""
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)


def _frame(frame: Frame) -> str:
    return f"{place(frame)} in {frame.site}"


def counted(number: int, noun: str) -> str:
    """1 connection, 2 connections, 2 processes."""
    plural = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{plural}"


def duration(seconds: float) -> str:
    """Two units at most: 41 s, 7 min, 2 h 40 min, 3 d 4 h."""
    minutes = int(seconds // 60)
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes and hours < 10 else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours and days < 10 else f"{days} d"


def printable(text: str) -> str:
    """Names come from clients and files: nothing in them may move a terminal's cursor."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
