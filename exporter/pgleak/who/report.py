"""What is known of every connection at one moment: plain data, made of one look at servers and processes. Pure.

Ages and durations are in seconds. Nothing here is secret: there is no query, no password, no connection string.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pgleak.holders.join import claims_of
from pgleak.pool.reading import STALE_AFTER
from pgleak.pool.suspects import piled_up
from pgleak.who.room import ServerState, room

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgleak.holders.join import Claim, Doubt, Held, Holder, Join
    from pgleak.pool.reading import Reading as Folder
    from pgleak.pool.snapshot import Checkout, EngineSite, Frame, PoolSnapshot, ProcessIdentity
    from pgleak.pool.suspects import Cause
    from pgleak.postgres.backends import ServerBackend
    from pgleak.postgres.reader import Reading

#: Holders that somebody has to do something about.
BAD_HOLDERS: frozenset[Holder] = frozenset({"overdue", "owner_dead", "orphaned", "unclaimed"})


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

    @property
    def is_suspect(self) -> bool:
        """Whether it looks leaked. Where its process reports, that knows better than a look from outside."""
        if self.holder == "orphaned" and self.checkout is not None:
            return self.cause is not None  # its holder may still be about to close it
        if self.process is not None or self.holder == "unclaimed":
            return self.holder in BAD_HOLDERS
        return bool(self.evidence)

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


@dataclass(frozen=True, slots=True)
class Heap:
    """Engines that one place makes over and over, and since when their connections stand open."""

    pool: str
    made: EngineSite
    ages: tuple[float, ...]  # of the connections, the oldest first
    unseen: float  # how old they were when they could first be told to be leaked

    @property
    def since(self) -> float:
        return max(self.ages, default=0.0)


@dataclass(frozen=True, slots=True)
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

    @property
    def suspects(self) -> tuple[Connection, ...]:
        return tuple(each for each in self.connections if each.is_suspect)

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
    at: float, readings: Sequence[Reading], addresses: Mapping[str, str], folder: Folder | None, join: Join
) -> Report:
    """Put one look together; what no server that could be read shows is taken from the processes alone."""
    dark = {addresses.get(reading.name, ""): reading.name for reading in readings if reading.server is None}
    is_dark = len(dark) == len(readings)  # no server at all is as good as none that can be read
    connections = [_of_backend(held, at) for held in join.held]
    shown = {(held.claim.process, held.claim.backend) for held in join.held if held.claim is not None}
    for claim in claims_of(folder.processes if folder and (dark or is_dark) else ()):
        address = claim.backend.server.rpartition("/")[0]
        if is_dark or (address in dark and (claim.process, claim.backend) not in shown):
            connections.append(_of_claim(claim, dark.get(address, address), at))
    groups: dict[tuple[str, str, str], list[Connection]] = {}
    for each in connections:
        groups.setdefault((each.server, each.usename, each.application_name), []).append(each)
    pools = _pools(folder)
    heaps = _heaps(folder, at)
    raw_names = {
        (held.backend.server, held.backend.usename, held.backend.label): held.backend.application_name
        for held in join.held
    }
    claimed = {(each.server, each.usename, each.application_name) for each in connections if each.process is not None}
    applications = [
        _application(key, group, pools.get(name, []), heaps.get(name, ()) if key in claimed else ())
        for key, group in groups.items()
        for name in [raw_names.get(key, key[2])]
    ]
    unmatched: dict[tuple[str, str, str], int] = {}
    for lost in join.unplaced if not is_dark else ():
        if lost.address in dark:
            continue
        place = lost.application_name, lost.address, lost.reason
        unmatched[place] = unmatched.get(place, 0) + lost.connections
    return Report(
        at,
        tuple(room(reading, addresses.get(reading.name, "")) for reading in readings),
        tuple(sorted(applications, key=_badness)),
        _watch(folder) if folder is not None else None,
        unmatched,
    )


def _badness(application: Application) -> tuple[int, int, str, str]:
    bad = len(application.suspects) + application.piled
    return (-bad, -len(application.connections), application.server, application.name)


def _application(
    key: tuple[str, str, str],
    connections: Iterable[Connection],
    pools: Sequence[tuple[ProcessIdentity, PoolSnapshot]],
    heaps: tuple[Heap, ...],
) -> Application:
    returned: Counter[str] = Counter()
    for _, pool in pools:
        returned.update(pool.counters.returned_by_gc)
    worst_first = sorted(connections, key=lambda each: (not each.is_suspect, -(each.since or 0), each.pid or 0))
    return Application(
        *key,
        tuple(worst_first),
        heaps,
        processes=len({process for process, _ in pools}),
        waiting=sum(pool.pending for _, pool in pools),
        timeouts=sum(pool.counters.timeouts for _, pool in pools),
        connections_max=sum(pool.connections_max for _, pool in pools),
        returned=returned,
    )


def _of_backend(held: Held, at: float) -> Connection:
    backend: ServerBackend = held.backend
    known = Connection(
        backend.server,
        backend.pid,
        backend.datname,
        backend.usename,
        backend.label,
        backend.client_addr,
        backend.state,
        max(at - backend.started, 0.0) if backend.started is not None else None,
        backend.unused,
        backend.transaction,
        backend.evidence,
        held.holder,
        held.doubt,
        limit=backend.limit,
    )
    return known if held.claim is None else _with_claim(known, held.claim)


def _of_claim(claim: Claim, server: str, at: float) -> Connection:
    database = claim.backend.server.rpartition("/")[2]
    age = max(at - claim.backend.opened, 0.0)
    name = claim.pool.application_name
    return _with_claim(
        Connection(server, claim.backend.pid, database, "", name, "", "", age, None, None, "", claim.holder), claim
    )


def _with_claim(known: Connection, claim: Claim) -> Connection:
    verdict = claim.verdict
    return known._replace(
        process=claim.process,
        pool=claim.pool.name,
        checkout=claim.checkout,
        cause=verdict.cause if verdict is not None else None,
        limit=claim.limit,
        silence=claim.silence,
    )


def _pools(folder: Folder | None) -> dict[str, list[tuple[ProcessIdentity, PoolSnapshot]]]:
    found: dict[str, list[tuple[ProcessIdentity, PoolSnapshot]]] = {}
    for each in folder.processes if folder else ():
        for pool in each.snapshot.pools:
            found.setdefault(pool.application_name, []).append((each.snapshot.process, pool))
    return found


def _heaps(folder: Folder | None, at: float) -> dict[str, tuple[Heap, ...]]:
    found: dict[str, list[Heap]] = {}
    for each in folder.processes if folder else ():
        pools = {pool.name: pool for pool in each.snapshot.pools}
        for pile in piled_up(each.snapshot):
            pool = pools[pile.pool]
            # Engines that are still new are the youngest of all.
            opened = sorted(backend.opened for backend in pool.idle)[: pile.made.unused]
            ages = tuple(max(at - moment, 0.0) for moment in opened)
            limit = each.snapshot.limits.unproven_site
            found.setdefault(pool.application_name, []).append(Heap(pile.pool, pile.made, ages, limit))
    return {name: tuple(heaps) for name, heaps in found.items()}


def _watch(folder: Folder) -> Watch:
    stale = sum(each.stale for each in folder.processes)
    return Watch(len(folder.processes), stale, dict(folder.skipped), folder.detail or folder.problem)


def place(frame: Frame) -> str:
    """`file:line`, the file without its folders."""
    return f"{frame.file.rpartition('/')[2]}:{frame.line}"
