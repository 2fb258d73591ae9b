"""The part of the page that tells who holds what: facts as tables and text, so that no script is needed. Pure."""

from __future__ import annotations

from collections import Counter
from html import escape
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import quote

from pgleak.who.connection import end_of
from pgleak.who.history import SLOTS
from pgleak.who.notes import about_applications, about_watching
from pgleak.who.phrases import counted, duration, in_site
from pgleak.who.sight import sight
from pgleak.who.words import callers_in_words, ended_in_words, how_fast_in_words, owner_in_words, stopped_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pgleak.pool.snapshot import Frame
    from pgleak.who.connection import Connection
    from pgleak.who.diagnosis import Diagnosis
    from pgleak.who.history import Key, Overview
    from pgleak.who.report import Application
    from pgleak.who.room import ServerState

SUSPECTS = 20  # of each application, one by one; /connections has all of them
APPLICATIONS = 300
_HEIGHT = 24
#: Each point that a line may go through: there are tens of thousands on a page, and writing numbers takes its time.
_POINTS = [[f"{x},{y} " for y in range(_HEIGHT)] for x in range(SLOTS + 1)]
_NUMBERS = ("Room left", "Connections", "Suspects")
_RIGHT = ' class="number"'

STYLE = """
.bad { color: var(--down); font-weight: 600; } th.number, td.number { text-align: right; white-space: nowrap; }
.where { min-width: 18rem; }
svg { width: 9rem; height: 1.5rem; display: block; } polyline { fill: none; stroke: var(--link); stroke-width: 2; }
meter { width: 8rem; } code { font: .875rem/1.5 ui-monospace, monospace; }
.finding { border-left: .3rem solid var(--down); padding: .1rem 1rem; margin: 1rem 0; }
.held { border-color: var(--soft); }
dl { display: grid; grid-template-columns: 6rem 1fr; margin: .5rem 0; } dd { margin: 0; overflow-wrap: anywhere; }
a:focus-visible, .scroll:focus-visible { outline: .15rem solid var(--link); outline-offset: .15rem; }
"""


def headline(seen: Overview) -> str:
    """The one thing to know, for the window's title and the top of the page."""
    found: Counter[str] = Counter()
    for each in seen.findings.diagnoses:
        kind = "guess" if each.is_guess else "leaked" if each.is_leak else "ended" if each.ended else "held"
        found[kind] += each.connections
    if found["leaked"]:
        return f"{counted(found['leaked'] + found['guess'], 'connection')} leaked"
    if found["guess"]:
        return f"{counted(found['guess'], 'connection')} perhaps leaked"
    if found["ended"]:
        return f"{counted(found['ended'], 'slot')} held on ended connections"
    return f"{counted(found['held'], 'connection')} held for long" if found["held"] else sight(seen.report).headline


def sections(seen: Overview) -> str:
    """What is wrong, room and time left, applications, suspects, and how the watcher is."""
    parts = [*_findings(seen), *_servers(seen), *_applications(seen), *_suspects(seen), *_watcher(seen)]
    return "\n".join(parts)


def _findings(seen: Overview) -> Iterator[str]:
    yield f'<h2 id="findings">{escape(headline(seen).capitalize())}</h2>'
    for diagnosis in islice(seen.findings.diagnoses, SUSPECTS):
        kind = "finding" if diagnosis.is_leak or diagnosis.ended else "finding held"
        yield f'<section class="{kind}"><h3>{_title(diagnosis)}</h3><dl>{"".join(_facts(diagnosis))}</dl></section>'
    more = len(seen.findings.diagnoses) - SUSPECTS
    if more > 0:
        yield f'<p>{more} more: <a href="/connections">/connections</a></p>'


def _title(diagnosis: Diagnosis) -> str:
    name, server = escape(diagnosis.application), escape(diagnosis.server)
    if diagnosis.ended:
        return f"{name} on {server}: {escape(ended_in_words(diagnosis))}"
    held = "" if diagnosis.is_leak else ", in use" if diagnosis.is_in_use else ", held for long"
    return f"{name} on {server}: {diagnosis.connections} of {counted(diagnosis.total, 'connection')}{held}"


def _facts(diagnosis: Diagnosis) -> Iterator[str]:
    fast = how_fast_in_words(diagnosis)
    yield _fact("Since", f"{duration(diagnosis.since)}{f', {fast}' if fast else ''}")
    yield _fact("Cause", f"{diagnosis.cause.what} ({diagnosis.cause.sure})")
    if diagnosis.frames:
        yield f"<dt>Line</dt><dd>{_stack(diagnosis.frames[:1] if diagnosis.callers else diagnosis.frames)}</dd>"
    else:
        yield _fact("Line", "not known: no process reports it")
    if diagnosis.callers:
        yield _fact("From", callers_in_words(diagnosis))
    held = diagnosis.example
    if held is not None:
        yield _fact("Owner", owner_in_words(held))
        if held.context:
            yield _fact("Serving", held.context)
    if diagnosis.hung:
        yield _fact("Process", "hangs: it has stopped reporting")
    if diagnosis.returned:
        yield _fact(
            "Besides", f"the garbage collector has given back {diagnosis.returned} taken there and never closed"
        )
    yield _fact("Change", diagnosis.cause.change)
    end = end_of(diagnosis.members) if diagnosis.is_leak and not diagnosis.is_guess else ""
    if end:
        yield f"<dt>End them</dt><dd><code>{escape(end)}</code></dd>"


def _fact(name: str, text: str) -> str:
    return f"<dt>{name}</dt><dd>{escape(text)}</dd>"


def _servers(seen: Overview) -> Iterator[str]:
    if not seen.report.servers:
        return
    yield "<h2>Servers</h2>"
    rows = [_server(server, seen) for server in seen.report.servers]
    yield table("Servers", ("Server", "Taken", "Room left", "Time left", "Last 24 h"), rows)


def _server(server: ServerState, seen: Overview) -> str:
    name = f'<th scope="row"><a href="/probe?target={quote(server.name, safe="")}">{escape(server.name)}</a></th>'
    if server.reason:
        return f'<tr>{name}<td colspan="4"><span class="bad">down</span>: {escape(server.reason)}</td></tr>'
    taken = f"{server.used} of {server.usable} taken"
    most = max(server.usable, 1)
    meter = f'<meter aria-label="connections taken" min="0" max="{most}" low="{0.7 * most:.0f}" high="{0.9 * most:.0f}" optimum="0" value="{server.used}">{taken}</meter> {taken}'
    left = "nothing leaks" if server.visible else "cannot tell: states are hidden"
    leaks = [each for each in seen.findings.diagnoses if each.server == server.name and (each.is_leak or each.per_hour)]
    if leaks:
        left = stopped_in_words(*leaks) if all(each.per_hour == 0 for each in leaks) else "too early to say"
    first = seen.findings.soonest(server.name)
    if first is None and server.used >= server.usable > 0:
        left = '<span class="bad">full now</span>'
    if first is not None:
        left = f'<span class="bad">{duration(first.seconds) if first.seconds else "full now"}</span>'
        if first.limit:
            left += f": {escape(first.limit)}, {first.used} of {first.usable} taken"
    room = max(server.usable - server.used, 0)
    line = _sparkline(seen, (server.name, "", ""))
    return f'<tr>{name}<td>{meter}</td><td class="number">{room}</td><td>{left}</td><td>{line}</td></tr>'


def _applications(seen: Overview) -> Iterator[str]:
    yield "<h2>Applications</h2>"
    if not seen.report.applications:
        yield "<p>No connections.</p>"
        return
    rows = [_application(each, seen) for each in seen.report.applications[:APPLICATIONS]]
    yield table("Applications", ("Application", "User", "Server", "Connections", "Suspects", "Last 24 h"), rows)
    more = len(seen.report.applications) - APPLICATIONS
    if more > 0:
        yield f'<p>{more} more: <a href="/connections">/connections</a></p>'
    yield from _list(about_applications(seen.report))


def _application(each: Application, seen: Overview) -> str:
    bad = len(each.suspects) + each.piled
    suspects = f'<span class="bad">{bad}</span>' if bad else "0"
    return (
        f'<tr><th scope="row">{escape(each.name)}</th><td>{escape(each.usename)}</td><td>{escape(each.server)}</td>'
        f'<td class="number">{len(each.connections)}</td><td class="number">{suspects}</td>'
        f"<td>{_sparkline(seen, (each.server, each.usename, each.name))}</td></tr>"
    )


def _suspects(seen: Overview) -> Iterator[str]:
    guilty = [each for each in seen.report.applications if each.suspects]
    if not guilty:
        return
    yield "<h2>Suspects</h2>"
    for application in guilty:
        user = f"{application.usename}@" if application.usename else ""
        name = f"{application.name} ({user}{application.server})"
        yield f"<h3>{escape(name)}</h3>"
        shown = application.suspects[:SUSPECTS]
        rows = [_suspect(each, before) for each, before in zip(shown, (None, *shown), strict=False)]
        yield table(
            f"Suspects of {name}",
            ("Process id", "State", "Age", "Unused", "Holder", "Where"),
            rows,
        )
        more = len(application.suspects) - SUSPECTS
        if more > 0:
            yield f'<p>{more} more: <a href="/connections">/connections</a></p>'


def _suspect(each: Connection, before: Connection | None) -> str:
    age = "" if each.age is None else duration(each.age)
    unused = "" if each.unused is None else duration(each.unused)
    pid = "" if each.pid is None else str(each.pid)
    return (
        f'<tr><th scope="row">{pid}</th><td>{escape(each.state)}</td><td>{age}</td><td>{unused}</td>'
        f"<td>{escape(each.holder.replace('_', ' '))}</td>"
        f'<td class="where">{"".join(_where(each, before))}</td></tr>'
    )


def _where(each: Connection, before: Connection | None) -> Iterator[str]:
    """The callers only where they are others than those of the row above."""
    held = each.checkout
    is_same = before is not None and before.frames == each.frames
    if held is None:
        yield escape(each.evidence.replace("_", " "))
    else:
        yield _stack(held.frames[:1] if is_same else held.frames) if held.frames else escape(held.site)
        owner = f"{held.owner.kind} {held.owner.name} ({held.owner.state}), for {duration(held.age)}"
        yield f"<div>{escape(owner)}</div>"
        if held.standing:
            yield f"<div>stands at <code>{_frame(held.standing[0])}</code></div>"
    if each.end:
        yield f"<div><code>{escape(each.end)}</code></div>"


def _stack(frames: Sequence[Frame]) -> str:
    """At most four frames, so that nothing has to be opened, which a page that comes anew would close again."""
    first, *callers = frames
    called = "".join(f"<br>called from {_frame(frame)}" for frame in callers)
    return f"<code>{_frame(first)}{called}</code>"


def _frame(frame: Frame) -> str:
    return escape(in_site(frame))


def _watcher(seen: Overview) -> Iterator[str]:
    found = list(about_watching(seen.report))
    watch = seen.report.watch
    yield "<h2>The watcher</h2>"
    if watch is not None:
        yield f"<p>{counted(watch.processes, 'process')} reporting, {watch.stale} of them hanging.</p>"
    yield from _list(found)
    if watch is None and not found:
        yield "<p>No folder of state files is read (pool_dir), so lines of code are not known.</p>"


def _list(notes: Iterable[str]) -> Iterator[str]:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    if items:
        yield f"<ul>{items}</ul>"


def _sparkline(seen: Overview, key: Key) -> str:
    """The floor of each ten minutes; what the line shows is told in words, too."""
    first = seen.slot - SLOTS
    slots = seen.series.get(key, {})
    if slots and next(iter(slots)) <= first:
        slots = {slot: count for slot, count in slots.items() if slot > first}
    if len(slots) < 2:
        return '<span class="soft">too early</span>'
    counts = list(slots.values())
    distinct = set(counts)
    least, most = min(distinct), max(distinct)
    heights = {count: _HEIGHT - 1 - (_HEIGHT - 2) * count // (most or 1) for count in distinct}
    start, end = next(iter(slots)) - first, next(reversed(slots)) - first + 1
    has_gaps = end - start != len(slots)
    columns = [_POINTS[slot - first] for slot in slots] if has_gaps else _POINTS[start:end]
    line = "".join(map(list.__getitem__, columns, map(heights.__getitem__, counts)))
    told = f"from {counts[0]} to {counts[-1]}, between {least} and {most}"
    return (
        f'<svg viewBox="0 0 {SLOTS} {_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{told}">'
        f'<title>{told}</title><polyline points="{line}"/></svg>'
    )


def table(name: str, head: Iterable[str], rows: Iterable[str]) -> str:
    """Return a table that is scrolled by itself where the window is narrow, by keyboard, too; ``name`` is its name for those who listen."""
    columns = "".join(f'<th scope="col"{_RIGHT if column in _NUMBERS else ""}>{column}</th>' for column in head)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}">'
        f'<table aria-label="{escape(name)}"><thead><tr>{columns}</tr></thead><tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )
