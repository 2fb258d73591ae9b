"""From what is known to what is wrong: which application leaks, since when, how fast, by which cause, at which line. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pgleak.pool.reading import STALE_AFTER
from pgleak.who.causes import AT_WORK, CAUSES, Cause, causes_of
from pgleak.who.pace import Pace, pace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgleak.pool.snapshot import Checkout, Frame
    from pgleak.who.connection import Connection
    from pgleak.who.report import Application, Report
    from pgleak.who.room import Limit, ServerState


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One cause at one place in one application."""

    server: str
    application: str
    usename: str
    cause: Cause
    connections: int  # leaked by it
    total: int  # that the application has
    since: float  # seconds ago that the oldest of them began
    pace: Pace | None  # None when it is too early to say
    frames: tuple[Frame, ...] = ()  # the place that took them, the innermost first; () where nobody inside reports
    callers: tuple[tuple[Frame, int], ...] = ()  # where they are several: who called that place, how often; most first
    example: Checkout | None = None  # the longest held of them
    members: tuple[Connection, ...] = ()  # the longest leaked first; () where it is engines that pile up
    hung: bool = False  # the process that holds them has stopped reporting
    returned: int = 0  # others taken there that the garbage collector has given back
    databases: Mapping[str, float] = field(default_factory=dict)  # the share of each
    ended: bool = False  # the server has ended them, and the pool's slots are held all the same
    drains: bool = False  # a pool has none left because of leaks, this one among them

    def share(self, limit: Limit) -> float:
        """How much of this leak counts against a limit, from 0 to 1."""
        if limit.kind == "role":
            return float(limit.name == self.usename)
        return self.databases.get(limit.name, 0.0)

    @property
    def is_in_use(self) -> bool:
        """Whether the server sees each of them used."""
        return bool(self.members) and all(each.is_used for each in self.members)

    @property
    def is_leak(self) -> bool:
        """Whether it looks as if nobody is going to give them back; else they are held for long."""
        return not (self.ended or self.is_in_use or self.cause.key in AT_WORK)

    @property
    def is_guess(self) -> bool:
        """Whether only the server's view speaks for a leak, and no growth: a quiet night leaves a pool at rest, too."""
        return self.is_leak and self.cause.sure == "possible" and not self.per_hour

    @property
    def per_hour(self) -> float | None:
        """So many more each hour, 0 when there are no new ones; None when it is too early to say."""
        return None if self.pace is None else self.pace.per_hour

    @property
    def site(self) -> str:
        return self.frames[0].site if self.frames else ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """When a server, or a role or database with a limit of its own, will be full if nobody acts."""

    server: str
    limit: str  # "role shop", "database shop"; "" for the server as a whole
    used: int
    usable: int
    per_hour: float  # leaked connections
    seconds: float  # until it is full; 0 when it is


@dataclass(frozen=True, slots=True)
class Findings:
    """The whole diagnosis; without diagnoses nothing leaks as far as can be seen."""

    diagnoses: tuple[Diagnosis, ...]  # what leaks first, the largest on top
    outlooks: tuple[Outlook, ...]  # of what fills up

    def outlook(self, server: str, limit: str = "") -> Outlook | None:
        """Of a server as a whole, or of one of its limits."""
        return next((each for each in self.outlooks if (each.server, each.limit) == (server, limit)), None)

    def soonest(self, server: str) -> Outlook | None:
        """Of what is full first: a limit of a role or a database may be nearer than the server's."""
        mine = [each for each in self.outlooks if each.server == server]
        return min(mine, key=lambda each: each.seconds, default=None)


def diagnose(report: Report) -> Findings:
    """Judge a report."""
    found = [diagnosis for application in report.applications for diagnosis in _of_application(application)]
    found.sort(key=lambda each: (not (each.is_leak or each.ended), each.is_guess, -each.connections, -each.since))
    return Findings(tuple(found), tuple(_outlooks(report, found)))


def _of_application(application: Application) -> Iterable[Diagnosis]:
    ended = {id(each) for each in application.ended}
    groups: dict[tuple[str, tuple[object, ...], bool], list[Connection]] = {}
    for connection, cause in causes_of((*application.suspects, *application.ended)):
        groups.setdefault((cause.key, _line(connection), id(connection) in ended), []).append(connection)
    for (key, _, is_ended), members in groups.items():
        members.sort(key=lambda each: -(each.since or 0))
        oldest = members[0]
        # By the youngest: it tells what it takes to be found, where the older ones were found for more than one reason.
        speed = pace((each.since or 0 for each in members), members[-1].unseen)
        found = _diagnosis(
            application, CAUSES[key], len(members), oldest.since or 0, speed, oldest.frames, tuple(members)
        )
        # These take nothing of the server's room any more.
        yield replace(found, ended=True, pace=None) if is_ended else found
    for heap in application.heaps:
        speed = pace(heap.ages, heap.unseen)
        yield _diagnosis(application, CAUSES["engine_per_call"], heap.made.unused, heap.since, speed, heap.made.frames)


def _line(connection: Connection) -> tuple[object, ...]:
    """The line that took it; where that is not known, the site."""
    held = connection.checkout
    if held is None:
        return ()
    return (held.frames[0].file, held.frames[0].line) if held.frames else (held.site,)


def _callers(members: Iterable[Connection]) -> tuple[tuple[Frame, int], ...]:
    called = [each.frames[1] for each in members if len(each.frames) > 1]
    counts = Counter((each.file, each.function, each.line) for each in called)
    one_of_each = {(each.file, each.function, each.line): each for each in called}
    return tuple((one_of_each[place], count) for place, count in counts.most_common()) if len(counts) > 1 else ()


def _diagnosis(
    application: Application,
    cause: Cause,
    count: int,
    since: float,
    speed: Pace | None,
    frames: tuple[Frame, ...],
    members: tuple[Connection, ...] = (),
) -> Diagnosis:
    example = members[0].checkout if members else None
    drained = {(pool.process, pool.name) for pool in application.tight if pool.is_drained}
    return Diagnosis(
        application.server,
        application.name,
        application.usename,
        cause,
        count,
        len(application.connections),
        since,
        speed,
        frames,
        _callers(members),
        example,
        members,
        hung=bool(members) and members[0].silence > STALE_AFTER,
        returned=application.returned.get(example.site, 0) if example is not None else 0,
        databases=_shares(members or application.connections),
        drains=any((each.process, each.pool) in drained for each in members),
    )


def _shares(connections: Sequence[Connection]) -> dict[str, float]:
    counts = Counter(each.datname for each in connections)
    return {name: count / len(connections) for name, count in counts.items()}


def _outlooks(report: Report, found: list[Diagnosis]) -> Iterable[Outlook]:
    for server in report.servers:
        mine = [each for each in found if each.server == server.name and each.per_hour]
        if mine and server.usable:
            yield _outlook(server, "", server.used, server.usable, sum(each.per_hour or 0 for each in mine))
        for limit in server.limits:
            per_hour = sum((each.per_hour or 0) * each.share(limit) for each in mine)
            if per_hour:
                yield _outlook(server, limit.label, limit.used, limit.most, per_hour)


def _outlook(server: ServerState, limit: str, used: int, most: int, per_hour: float) -> Outlook:
    return Outlook(server.name, limit, used, most, per_hour, max(most - used, 0) / per_hour * 3600)
