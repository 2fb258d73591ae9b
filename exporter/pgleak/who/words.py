"""A diagnosis in words, for a person who has to act now: pure, text only, at most as wide as asked."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING

from pgleak.postgres.check import NEARLY_FULL
from pgleak.who.notes import notes
from pgleak.who.phrases import counted, duration, in_site, printable, wrapped
from pgleak.who.sight import cannot_be_read, sight

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.pool.snapshot import Checkout
    from pgleak.who.diagnosis import Diagnosis, Findings, Outlook
    from pgleak.who.report import Report
    from pgleak.who.room import ServerState

_CALLERS = 5  # of one line, the most frequent
_SURE = {
    "certain": "certain: this was seen",
    "likely": "likely: its traces were seen",
    "possible": "possible: seen from the server alone",
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
        yield from _field("line", in_site(diagnosis.frames[0]), width)
        yield from _field("from", callers_in_words(diagnosis), width)
    elif diagnosis.frames:
        yield from _field("line", " < ".join(in_site(frame) for frame in diagnosis.frames), width)
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
    return f"{owner} lives{f' and stands at {in_site(held.standing[0])}' if held.standing else ''}"


def callers_in_words(diagnosis: Diagnosis) -> str:
    """As in `4x shop.py:12 in shop:invoice, 3x shop.py:14 in shop:refund`; empty where all were called from one place."""
    told = ", ".join(f"{count}x {in_site(frame)}" for frame, count in diagnosis.callers[:_CALLERS])
    others = len(diagnosis.callers) - _CALLERS
    return told + (f", and {counted(others, 'other place')}" if others > 0 else "")


def how_fast_in_words(diagnosis: Diagnosis) -> str:
    """As in `+4.0 an hour`; empty when it is too early to say."""
    if diagnosis.pace is None:
        return ""
    if diagnosis.pace.has_stopped:
        return f"{stopped_in_words(diagnosis)}: the last {duration(diagnosis.pace.last)} ago"
    return f"{diagnosis.pace.per_hour:+.1f} an hour"


def stopped_in_words(*stopped: Diagnosis) -> str:
    """That there are no new ones is no relief where that is because there is none left to take."""
    return f"no new ones{', a pool has none left' if any(each.drains for each in stopped) else ''}"


def _when(used: int, most: int, outlook: Outlook | None) -> str:
    if used >= most:
        return ", full now"
    return "" if outlook is None else f", full in {duration(outlook.seconds)} if nobody acts"


def _seen(report: Report) -> str:
    connections = sum(len(each.connections) for each in report.applications)
    text = f" Looked at: {counted(connections, 'connection')} of {counted(len(report.applications), 'application')}"
    if report.watch is not None and report.watch.processes:
        return f"{text}, with {counted(report.watch.processes, 'process')} reporting their pools."
    return f"{text}, from the server alone: a leak shows there when connections have gone unused for a while."


def _field(name: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=f"  {name:<9}", subsequent_indent=" " * 11, break_on_hyphens=False)
