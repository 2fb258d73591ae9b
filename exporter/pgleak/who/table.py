"""A report as a table for a terminal: pure, 80 columns, plain text; a line that begins with ``!`` is about a suspect."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pgleak.postgres.connection import APPLICATION_NAME
from pgleak.who.connection import end_of
from pgleak.who.notes import notes
from pgleak.who.phrases import counted, duration, printable, wrapped
from pgleak.who.report import place
from pgleak.who.sight import cannot_be_read, sight
from pgleak.who.words import ended_in_words, how_fast_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgleak.who.connection import Connection
    from pgleak.who.diagnosis import Diagnosis, Findings, Outlook
    from pgleak.who.report import Application, Report
    from pgleak.who.room import ServerState

WIDTH = 80
HEIGHT = 23  # lines of a terminal of 24 rows, the cursor has one
MEMBERS = 5  # of each culprit, a row each; where that is more than the terminal has room for, at least
FEWEST = 3  # as long as every culprit can be seen
APPLICATIONS = 10  # without suspects, and
PIDS = 50  # of each line of code, unless all are asked for
_BAR = 16
_WORTH_SAYING = 60.0  # seconds of rest; connections that come round are all younger
_INDENT = " " * 4
_TITLES = f"  {'PID':<8}{'STATE':<11}{'AGE':<7}{'UNUSED':<7}{'HOLDER':<11}WHERE"
_STATES = {
    "idle in transaction": "idle tx",
    "idle in transaction (aborted)": "aborted tx",
    "fastpath function call": "fastpath",
    "(hidden)": "hidden",
    "": "-",
}


def table(
    report: Report, findings: Findings, *, everything: bool = False, width: int = WIDTH, height: float = HEIGHT
) -> list[str]:
    """The culprit on top; with as many of each one's connections, if not `everything`, as `height` lines have room for."""
    lines = wrapped(_head(report), width, "  ")
    for server in report.servers:
        if server.reason:
            lines += wrapped(f"! {cannot_be_read(server, report)}", width, "!   ")
        else:
            lines += _server(server, findings, width)
    bad = [each for each in report.applications if each.suspects or each.piled or each.ended]
    well = [each for each in report.applications if not (each.suspects or each.piled or each.ended)]
    shown = [*bad, *(well if everything else well[:APPLICATIONS])]
    lines += ["", *(part for each in shown for part in wrapped(_application(each), width, "    "))]
    if len(well) > len(shown) - len(bad):
        lines.append(f"  and {len(well) + len(bad) - len(shown)} more applications without suspects (--all)")
    noted = [line for note in notes(report) for line in wrapped(f"  Note: {note}", width, "  ")]
    room = height - len(lines)
    lines += _all_pids(findings, width) if everything else _culprits(findings, width, room, len(noted) + bool(noted))
    for application in report.applications if everything else ():
        lines += ["", *_all(application, width)]
    if not report.applications:
        lines += ["  no connections" if not sight(report).is_blind else "  no connection could be seen"]
    return [_fitted(line, width) for line in [*lines, *([""] if noted else []), *noted]]


def _head(report: Report) -> str:
    suspects = sum(len(each.suspects) + each.piled for each in report.applications)
    reporting = f", {counted(report.watch.processes, 'process')} reporting" if report.watch is not None else ""
    ended = sum(len(each.ended) for each in report.applications)
    found = [counted(suspects, "suspect connection")] if suspects else []
    found += [f"{counted(ended, 'slot')} held on ended connections"] if ended else []
    return f"pgleak who  {time.strftime('%H:%M:%S', time.localtime(report.at))}  {', '.join(found) or sight(report).headline}{reporting}"


def _server(server: ServerState, findings: Findings, width: int) -> Iterator[str]:
    """How full it is; and those limits of roles and databases that fill up."""
    filled = min(_BAR, round(_BAR * server.used / server.usable)) if server.usable else 0
    bar = "#" * filled + "." * (_BAR - filled)
    outlook = findings.outlook(server.name)
    is_full = server.used >= server.usable > 0
    left = "  full now" if is_full else f"  {_full(outlook)}" if outlook is not None else ""
    mark = "!" if left else " "
    row = f"{mark} {server.name:<16.16} {server.used:>5} of {server.usable} taken"
    whole = f"{row} [{bar}]{left}"
    yield whole if len(whole) <= width else f"{row}{left}"
    for limit in server.limits:
        outlook = findings.outlook(server.name, limit.label)
        if outlook is not None:
            told = f"!   {limit.label}: {limit.used} of {limit.most} taken, {_full(outlook)}"
            yield from wrapped(told, width, "!     ")


def _full(outlook: Outlook) -> str:
    return f"full in {duration(outlook.seconds)}" if outlook.seconds else "full now"


def _application(application: Application) -> str:
    bad = len(application.suspects) + application.piled
    user = f"{application.usename}@" if application.usename else ""
    counts = counted(len(application.connections), "connection") + (f", {bad} suspect" if bad else "")
    mark = "!" if bad else " "
    return f"{mark} {application.name}  ({user}{application.server})  {counts}: {_inside(application)}"


def _inside(application: Application) -> str:
    """Who holds its connections; where no process reports, what the server says of them."""
    if application.name == APPLICATION_NAME and not application.processes:
        return "the exporter itself"
    known: dict[str, list[Connection]] = {}
    for each in application.connections:
        name = _word(each.holder) if each.process is not None or application.processes else each.state or "unknown"
        name = "in use for long" if each.is_busy else name
        known.setdefault(name, []).append(each)
    told = []
    for name, group in sorted(known.items(), key=lambda item: (-len(item[1]), item[0])):
        ages = [] if application.processes else [age for one in group if (age := one.transaction or one.unused)]
        oldest = max(ages, default=0)
        told.append(f"{len(group)} {name}" + (f", oldest {duration(oldest)}" if oldest >= _WORTH_SAYING else ""))
    return "; ".join(told)


def _all_pids(findings: Findings, width: int) -> Iterator[str]:
    for diagnosis in findings.diagnoses:
        yield ""
        yield from _culprit(diagnosis, width, len(diagnosis.members), has_rows=False)


def _culprits(findings: Findings, width: int, room: float, noted: int) -> list[str]:
    """Each with as many rows as leave every other culprit, and what ends it, on the screen."""
    lines: list[str] = []
    for most in range(MEMBERS, -1, -1):
        lines, told = [], 0
        for diagnosis in findings.diagnoses:
            rows = [] if diagnosis.ended else [*_rows(diagnosis.members[:most], width)]
            lines += ["", *_culprit(diagnosis, width, PIDS, has_rows=bool(rows))]
            told = len(lines)  # the last one's rows may run over the edge, if they are few
            lines += rows
        if (len(lines) + noted if most > FEWEST else told) <= room:
            break
    return lines


def _rows(members: Sequence[Connection], width: int) -> Iterator[str]:
    if members:
        yield from wrapped(_TITLES, width, "  ")
    for each in members:
        yield from wrapped(f"! {_row(each)}", width, _INDENT)
        owner = _owner(each, since=False)  # that is told of all of them; and what moves on is sent at each look
        yield from wrapped(f"{_INDENT}{owner}", width, _INDENT) if owner else ()


def _culprit(diagnosis: Diagnosis, width: int, most: int, *, has_rows: bool) -> Iterator[str]:
    """One line of code, with the process ids of what it leaks, as many as are wanted; without rows, who holds the first."""
    pace = how_fast_in_words(diagnosis).replace(" an hour", "/h")
    line = f" {_taken_at(diagnosis)}," if diagnosis.frames else ""
    yield from wrapped(
        f"! {diagnosis.connections}x{line} {diagnosis.application} on {diagnosis.server}, "
        f"since {duration(diagnosis.since)}{f', {pace}' if pace else ''}: {_word(diagnosis.cause.key)}"
        f"{', in use' if diagnosis.is_in_use else ''}",
        width,
        "!   ",
    )
    if diagnosis.ended:
        yield from wrapped(f"{_INDENT}{ended_in_words(diagnosis)}", width, _INDENT)
    if diagnosis.members and not has_rows:
        owner = _owner(diagnosis.members[0])
        yield from (
            wrapped(f"{_INDENT}{'the first ' if diagnosis.connections > 1 else ''}{owner}", width, _INDENT)
            if owner
            else ()
        )
    shown = diagnosis.members[:most]
    pids = ", ".join(str(each.pid) for each in shown if each.pid is not None)
    if not pids or diagnosis.ended:
        return
    yield from wrapped(f"{_INDENT}{end_of(shown) or f'process ids on the server: {pids}'}", width, _INDENT)
    if len(diagnosis.members) > len(shown):
        yield f"{_INDENT}and {len(diagnosis.members) - len(shown)} more (--all)"


def _taken_at(diagnosis: Diagnosis) -> str:
    """The line, and who called it: where one helper takes all connections, the line to change is its caller's."""
    line, *callers = (f"{place(frame)} {frame.function}" for frame in diagnosis.frames[:2])
    if diagnosis.callers:
        callers = [f"{count}x {place(frame)} {frame.function}" for frame, count in diagnosis.callers[:2]]
        callers += ["..."] if len(diagnosis.callers) > 2 else []
    return f"{line} < {', '.join(callers)}" if callers else line


def _all(application: Application, width: int) -> Iterator[str]:
    yield f"  {application.name} on {application.server}"
    yield _TITLES
    for connection in application.connections:
        yield from _connection(connection, width)


def _row(connection: Connection) -> str:
    return (
        f"{connection.pid if connection.pid is not None else '?':<8}"
        f"{_STATES.get(connection.state, connection.state):<11.10}"
        f"{_short(connection.age):<7}{_short(connection.unused):<7}{_word(connection.holder):<11}{_where(connection)}"
    )


def _connection(connection: Connection, width: int) -> Iterator[str]:
    yield f"{'!' if connection.is_suspect else ' '} {_row(connection)}"
    if connection.is_suspect:
        owner = _owner(connection)
        if owner:
            yield from wrapped(f"{_INDENT}{owner}", width, _INDENT)
        if connection.end:
            yield f"{_INDENT}{connection.end}"


def _where(connection: Connection) -> str:
    if connection.frames:
        frame = connection.frames[0]
        return f"{place(frame)} {frame.function}"
    if connection.checkout is not None:
        return connection.checkout.site
    return connection.evidence.replace("_", " ") if connection.process is None else f"pool {connection.pool}"


def _owner(connection: Connection, *, since: bool = True) -> str:
    held = connection.checkout
    if held is None:
        return f"from {connection.client_addr}" if connection.client_addr else ""
    told = f"{f'held {duration(held.age)} ' if since else ''}by {held.owner.kind} {held.owner.name!r}"
    if held.owner.state == "dead":
        told += " (ended)"
    elif held.standing:
        told += f", now at {place(held.standing[0])} {held.standing[0].function}"
    if connection.process is not None:
        told += f", process {connection.process.pid}"
    return told


def _word(holder: str) -> str:
    return holder.replace("_", " ")


def _short(seconds: float | None) -> str:
    """At most six characters: 41s, 7m, 2h40m, 3d4h, 12d."""
    if seconds is None:
        return "-"
    whole = max(round(seconds), 0)
    minutes = whole // 60
    if whole < 120:
        return f"{whole}s"
    if minutes < 100:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    return f"{hours // 24}d{hours % 24}h" if hours < 240 else f"{hours // 24}d"


def _fitted(line: str, width: int) -> str:
    line = printable(line.rstrip())
    return line if len(line) <= width else f"{line[: width - 3]}..."
