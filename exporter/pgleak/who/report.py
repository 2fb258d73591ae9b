"""What is known of every connection at one moment: plain data, made of one look at servers and processes. Pure.

Ages and durations are in seconds. Nothing here is secret: there is no query, no password, no connection string.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from pgleak.holders.join import BAD_HOLDERS, GOOD_HOLDERS, claims_of
from pgleak.pool.reading import STALE_AFTER
from pgleak.who.causes import is_one_piece_of_work
from pgleak.who.heaps import heaps, owned_pools
from pgleak.who.room import ServerState, room
from pgleak.who.strays import Homes, address_of, strays

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgleak.holders.join import Claim, Doubt, Held, Holder, Join
    from pgleak.pool.reading import Reading as Folder
    from pgleak.pool.snapshot import Checkout, Frame, ProcessIdentity
    from pgleak.pool.suspects import Cause
    from pgleak.postgres.backends import ServerBackend
    from pgleak.postgres.reader import Reading
    from pgleak.who.heaps import Heap, Owned


class Connection(NamedTuple):  # thousands are made at once, five times faster than of a frozen dataclass
    """One connection, as far as each side knows it; what a side does not know is empty, None or "unknown"."""

    server: str
    pid: int | None
    datname: str
    usename: str
    application_name: str
    client_addr: str
    state: str  # of the server; "" when no server was asked
    age: float | None
    unused: float | None  # since its state last changed
    transaction: float | None
    evidence: str  # why the server's view alone takes it for leaked; "" when it does not
    holder: Holder
    doubt: Doubt = ""
    process: ProcessIdentity | None = None
    pool: str = ""
    checkout: Checkout | None = None
    cause: Cause | None = None  # why the pool's view takes it for leaked
    limit: float = 0.0  # how long it may be as it is; 0 where nobody judges that
    silence: float = 0.0  # since its process reported
    is_used: bool = False  # held for too long, and the server has seen it used since it was, and lately

    @property
    def is_suspect(self) -> bool:
        """Whether it looks leaked. Where its process reports, that knows better than a look from outside."""
        holder = self.holder
        if holder in GOOD_HOLDERS:
            return False
        if self.is_busy:
            return False
        if holder == "orphaned" and self.checkout is not None:
            return self.cause is not None  # its holder may still be about to close it
        if self.process is not None or holder == "unclaimed":
            return holder in BAD_HOLDERS
        return bool(self.evidence)

    @property
    def is_busy(self) -> bool:
        """Whether one piece of work takes long: what is leaked is never used again."""
        return self.is_used and self.checkout is not None and is_one_piece_of_work(self.cause, self.checkout)

    @property
    def since(self) -> float | None:
        """For how long it has been leaked, if it is: since it was taken, or else used last."""
        if self.checkout is not None:
            return self.checkout.age
        if self.evidence == "stuck_in_transaction":
            return self.transaction
        return self.unused if self.unused is not None else self.age

    @property
    def unseen(self) -> float:
        """How old it was when it could first be told to be leaked."""
        held = self.checkout
        before = 0.0 if held is None or held.owner.state != "dead" else max(held.age - held.owner.dead_for, 0.0)
        return self.limit + before + (self.silence if self.silence > STALE_AFTER else 0.0)

    @property
    def frames(self) -> tuple[Frame, ...]:
        return self.checkout.frames if self.checkout is not None else ()

    @property
    def end(self) -> str:
        """The SQL that ends it, for a person to run; "" where the process id is not the server's."""
        return f"select pg_terminate_backend({self.pid});" if self.pid is not None and self.state else ""


@dataclass(frozen=True)  # no slots, so that what is asked again and again is found once
class Application:
    """The connections of one application on one server, the worst first."""

    server: str
    usename: str
    name: str
    connections: tuple[Connection, ...]
    heaps: tuple[Heap, ...] = ()
    processes: int = 0  # that report and belong to it
    waiting: int = 0  # requests that wait for a connection of its pools
    timeouts: int = 0  # requests that waited in vain, since the processes began
    connections_max: float = 0.0  # all its pools together
    returned: Mapping[str, int] = field(default_factory=dict)  # by the garbage collector, for the site that took them
    ended: tuple[
        Connection, ...
    ] = ()  # its pools hold them for too long, and the server has ended them; in no other number

    @cached_property
    def suspects(self) -> tuple[Connection, ...]:
        return tuple([each for each in self.connections if each.is_suspect])

    @property
    def piled(self) -> int:
        return sum(heap.made.unused for heap in self.heaps)


@dataclass(frozen=True, slots=True)
class Watch:
    """How the folder of state files is; None in a report when there is none."""

    processes: int
    stale: int
    skipped: Mapping[str, int]
    problem: str  # why it cannot be read, in words; "" when it can


@dataclass(frozen=True, slots=True)
class Report:
    """Everything, the worst application first."""

    at: float  # Unix time
    servers: tuple[ServerState, ...]
    applications: tuple[Application, ...]
    watch: Watch | None
    unmatched: Mapping[
        tuple[str, str, str], int
    ]  # connections by application, address and reason: on no watched server

    def server(self, name: str) -> ServerState | None:
        return next((each for each in self.servers if each.name == name), None)


def report(
    at: float,
    readings: Sequence[Reading],
    addresses: Mapping[str, str],
    folder: Folder | None,
    join: Join,
    homes: Homes | None = None,
) -> Report:
    """Put one look together; what no server that could be read shows is taken from the processes alone."""
    dark = {addresses.get(reading.name, ""): reading.name for reading in readings if reading.server is None}
    is_dark = all(
        reading.server is None for reading in readings
    )  # no server at all is as good as none that can be read
    asked = {reading.name: reading.asked for reading in readings}
    connections = [_of_backend(held, at, asked) for held in join.held]
    unread = folder.processes if folder and (dark or is_dark) else ()
    shown = {(held.claim.process, held.claim.backend) for held in join.held if unread and held.claim is not None}
    for claim in claims_of(unread):
        address = address_of(claim)
        if is_dark or (address in dark and (claim.process, claim.backend) not in shown):
            connections.append(_of_claim(claim, dark.get(address, address), at))
    lost: dict[tuple[str, str], list[Connection]] = {}  # by server and the name that the processes give
    closed: Counter[tuple[str, str]] = Counter()
    for claim, address, server in strays(readings, addresses, folder, join, homes or Homes()) if folder else ():
        if server:
            lost.setdefault((server, claim.pool.application_name), []).append(_of_claim(claim, server, at))
            closed[claim.pool.application_name, address] += 1
        else:
            connections.append(_of_claim(claim, address, at))
    groups: dict[tuple[str, str, str], list[Connection]] = {}
    for each in connections:
        groups.setdefault((each.server, each.usename, each.application_name), []).append(each)
    names = {key: key[2] for key in groups}
    for held, each in zip(join.held, connections, strict=False):  # these come first, in the same order
        if each.application_name != held.backend.application_name:  # rewritten, or beyond a cap
            names[each.server, each.usename, each.application_name] = held.backend.application_name
    for server, name in lost:
        if not any((key[0], known) == (server, name) for key, known in names.items()):
            groups[server, "", name], names[server, "", name] = [], name
    owned = owned_pools(groups, names, folder)
    applications = [
        _application(key, group, owned[key], heaps(owned[key], group, at), lost.pop((key[0], names[key]), []))
        for key, group in groups.items()
    ]
    unmatched: dict[tuple[str, str, str], int] = {}
    for each_lost in join.unplaced if not is_dark else ():
        place = each_lost.application_name, each_lost.address, each_lost.reason
        told = min(closed[place[:2]], each_lost.connections)
        closed[place[:2]] -= told
        if each_lost.address not in dark and each_lost.connections > told:
            unmatched[place] = unmatched.get(place, 0) + each_lost.connections - told
    return Report(
        at,
        tuple(room(reading, addresses.get(reading.name, "")) for reading in readings),
        tuple(sorted(applications, key=_badness)),
        _watch(folder) if folder is not None else None,
        unmatched,
    )


def _badness(application: Application) -> tuple[int, int, str, str]:
    bad = len(application.suspects) + application.piled + len(application.ended)
    return (-bad, -len(application.connections), application.server, application.name)


def _application(
    key: tuple[str, str, str],
    connections: Iterable[Connection],
    owned: Sequence[Owned],
    heaps: tuple[Heap, ...],
    ended: Sequence[Connection],
) -> Application:
    pools = [(each.snapshot.process, pool) for each, pool in owned]
    returned: Counter[str] = Counter()
    for _, pool in pools:
        returned.update(pool.counters.returned_by_gc)
    suspects: list[Connection] = []
    others: list[tuple[float, int, Connection]] = []
    for each in connections:
        if each.is_suspect:
            suspects.append(each)
        else:
            others.append((-(each.unused or each.age or 0.0), each.pid or 0, each))
    suspects.sort(key=lambda each: (-(each.since or 0), each.pid or 0))
    others.sort(key=itemgetter(0, 1))
    return Application(
        *key,
        (*suspects, *[each for _, _, each in others]),
        heaps,
        processes=len({process for process, _ in pools}),
        waiting=sum(pool.pending for _, pool in pools),
        timeouts=sum(pool.counters.timeouts for _, pool in pools),
        connections_max=sum(pool.connections_max for _, pool in pools),
        returned=returned,
        ended=tuple(sorted(ended, key=lambda each: -(each.since or 0))),
    )


def _of_backend(held: Held, at: float, asked: Mapping[str, float]) -> Connection:
    backend, holder, claim, doubt = held
    server, pid, started, datname, usename, _, label, address, state, unused, transaction, evidence, limit = backend
    age = None if started is None else at - started if at > started else 0.0
    process, pool, checkout, cause, silence, is_used = None, "", None, None, 0.0, False
    if claim is not None:
        process, owner, _, _, checkout, verdict, silence, limit, _ = claim
        pool = owner.name
        if verdict is not None:
            cause, is_used = verdict.cause, _is_used(claim, backend, asked.get(server, at))
    fields = (
        server, pid, datname, usename, label, address, state, age, unused, transaction, evidence, holder, doubt,
        process, pool, checkout, cause, limit, silence, is_used,
    )  # fmt: skip
    return tuple.__new__(Connection, fields)  # in two thirds of the time that the class itself takes


def _is_used(claim: Claim, backend: ServerBackend, asked: float) -> bool:
    """Whether the server has seen it used when it was overdue already, no longer ago than it may be held."""
    held = claim.checkout
    if held is None or backend.unused is None or claim.holder == "owner_dead":
        return False
    if backend.state == "active":
        return True
    return backend.unused <= claim.limit < asked - backend.unused - held.checked_out_at


def _of_claim(claim: Claim, server: str, at: float) -> Connection:
    database = claim.backend.server.rpartition("/")[2]
    age = max(at - claim.backend.opened, 0.0)
    name = claim.pool.application_name
    pid, inside = claim.backend.pid, _inside(claim)
    return Connection(server, pid, database, "", name, "", "", age, None, None, "", claim.holder, "", *inside)


def _inside(claim: Claim) -> tuple[ProcessIdentity, str, Checkout | None, Cause | None, float, float]:
    """What a process says of a connection: the last fields of one, from `process` on."""
    cause = claim.verdict.cause if claim.verdict is not None else None
    return claim.process, claim.pool.name, claim.checkout, cause, claim.limit, claim.silence


def _watch(folder: Folder) -> Watch:
    stale = sum(each.stale for each in folder.processes)
    return Watch(len(folder.processes), stale, dict(folder.skipped), folder.detail or folder.problem)


def place(frame: Frame) -> str:
    """`file:line`, the file without its folders."""
    return f"{frame.file.rpartition('/')[2]}:{frame.line}"
