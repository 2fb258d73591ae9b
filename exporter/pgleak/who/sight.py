"""How much of the whole could be seen: nobody may say that nothing leaks of what could not be looked at. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgleak.who.unjudged import unjudged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.who.report import Report
    from pgleak.who.room import ServerState


_UNMATCHED = {
    "pooler": "have process ids that are none: a pooler such as PgBouncer is in between, so nobody can say who holds what",
    "not_watched": "are on no server that is watched and could be read, or just closed",
    "ambiguous": "fit two servers equally well, so none was chosen",
    "no_pid": "cannot be found on the server: the driver does not tell their process ids",
}


@dataclass(frozen=True, slots=True)
class Sight:
    """What a report rests on."""

    is_blind: bool  # nothing there to judge by
    down: tuple[str, ...]  # servers that cannot be read, and why
    hidden: tuple[str, ...]  # what else could not be looked at, and why

    unmatched: tuple[str, ...] = ()  # what processes report and no server shows
    waits: bool = False  # there are some that are not judged yet

    @property
    def unseen(self) -> tuple[str, ...]:
        return self.down + self.hidden + self.unmatched

    @property
    def headline(self) -> str:
        """What to say where no leak was found."""
        if self.is_blind:
            return "cannot tell what leaks"
        found = "no leak in what could be seen" if self.unseen else "nothing looks leaked"
        return f"{found} so far" if self.waits else found


def sight(report: Report) -> Sight:
    """Say what could be seen: a server whose states are hidden, and a folder in which nobody reports, tell nothing."""
    watch = report.watch
    reports = watch is not None and not watch.problem and watch.processes > 0
    servers = any(not each.reason and each.visible for each in report.servers)
    down = tuple(f"{each.name} cannot be read: {each.reason}" for each in report.servers if each.reason)
    waits = any(True for _ in unjudged(report))
    return Sight(not (reports or servers), down, tuple(_hidden(report)), tuple(unmatched(report, lasting=True)), waits)


def cannot_be_read(server: ServerState, report: Report) -> str:
    """The headline for a server that did not answer."""
    if report.watch is not None and report.watch.processes:
        return f"{server.name} cannot be read ({server.reason}): this is what the processes report"
    return f"{server.name} cannot be read: {server.reason}"


def unmatched(report: Report, *, lasting: bool = False) -> Iterator[str]:
    """What processes report to be connected to, and why it was found on no server.

    With ``lasting``, without what was closed between the report and the look, as a busy application's always is: it
    reports another server's, or the server itself was read and does not have it.
    """
    read = {each.address for each in report.servers if not each.reason}
    for (name, address, reason), count in report.unmatched.items():
        if lasting and reason == "not_watched" and address in read:
            continue
        noun = "connection" if count == 1 else "connections"
        yield f"{count} {noun} that {name or 'a process'} reports to {address} {_UNMATCHED[reason]}"


def _hidden(report: Report) -> Iterator[str]:
    for server in report.servers:
        if not server.reason and not server.visible:
            yield f"{server.name} hides states and times from this role: `pgleak grants` prints the SQL that helps"
    watch = report.watch
    if watch is not None and watch.problem:
        yield f"the folder of state files cannot be read: {watch.problem}"
    elif watch is not None and not watch.processes:
        yield "no process reports to the folder: is PGLEAK_DIR set to it where the application runs?"
    elif watch is None and not report.servers:
        yield "no server was read so far"
