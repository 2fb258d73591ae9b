"""What is known of every connection at one moment: plain data, made of one look at servers and processes. Pure.

Ages and durations are in seconds. Nothing here is secret: there is no query, no password, no connection string.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pgleak.holders.claims import claims_of
from pgleak.who.connection import Quiet, is_quiet, of_backend, of_claim, worst_first
from pgleak.who.heaps import heaps, owned_pools
from pgleak.who.room import ServerState, room
from pgleak.who.strays import Homes, address_of, strays
from pgleak.who.tight import tight_pools

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgleak.holders.claims import Claim
    from pgleak.holders.join import Held, Join
    from pgleak.pool.reading import Reading as Folder
    from pgleak.pool.snapshot import Frame
    from pgleak.postgres.reader import Reading
    from pgleak.who.connection import Connection
    from pgleak.who.heaps import Heap, Key, Owned
    from pgleak.who.tight import TightPool


@dataclass(frozen=True)  # no slots, so that what is asked again and again is found once
class Application:
    """The connections of one application on one server, the worst first."""

    server: str
    usename: str
    name: str
    connections: Sequence[Connection]
    heaps: tuple[Heap, ...] = ()
    processes: int = 0  # that report and belong to it
    waiting: int = 0  # requests that wait for a connection of its pools
    timeouts: int = 0  # requests that waited in vain, since the processes began
    connections_max: float = 0.0  # all its pools together
    returned: Mapping[str, int] = field(default_factory=dict)  # by the garbage collector, for the site that took them
    ended: tuple[
        Connection, ...
    ] = ()  # its pools hold them for too long, and the server has ended them; in no other number
    tight: tuple[TightPool, ...] = ()

    @cached_property
    def suspects(self) -> tuple[Connection, ...]:
        return () if self.is_quiet else tuple([each for each in self.connections if each.is_suspect])

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is to be said of any of its connections."""
        return type(self.connections) is Quiet  # isinstance takes long, because it is an abstract class's

    @property
    def once_used(self) -> int:
        """How many lie in pools and were used once and never again, as the server sees it; those that pile up left out."""
        if type(self.connections) is Quiet:
            found = self.connections.once_used
        else:
            found = sum(each.holder == "pooled" and each.evidence == "never_reused" for each in self.connections)
        return max(found - self.piled, 0)

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
    found: dict[Key, list[Held]] = {}
    for held in join.held:
        backend = held.backend
        found.setdefault((backend.server, backend.usename, backend.label), []).append(held)
    groups: dict[Key, Sequence[Connection]] = {
        key: Quiet(group, at, asked) if all(map(is_quiet, group)) else [of_backend(each, at, asked) for each in group]
        for key, group in found.items()
    }
    names = {key: group[-1].backend.application_name for key, group in found.items()}
    unplaced: list[Connection] = []
    unread = folder.processes if folder and (dark or is_dark) else ()
    shown = {(held.claim.process, held.claim.backend) for held in join.held if unread and held.claim is not None}
    for claim in claims_of(unread):
        address = address_of(claim)
        if is_dark or (address in dark and (claim.process, claim.backend) not in shown):
            unplaced.append(of_claim(claim, dark.get(address, address), at))
    lost: dict[tuple[str, str], list[Connection]] = {}  # by server and the name that the processes give
    closed: Counter[tuple[str, str]] = Counter()
    young: list[tuple[Claim, str]] = []  # with the server that was read before they were opened
    for claim, address, server, is_ended in (
        strays(readings, addresses, folder, join, homes or Homes()) if folder else ()
    ):
        if server and not is_ended:
            young.append((claim, server))
        elif server:
            lost.setdefault((server, claim.pool.application_name), []).append(of_claim(claim, server, at))
            closed[claim.pool.application_name, address] += 1
        else:
            unplaced.append(of_claim(claim, address, at))
    for each in unplaced:
        key = each.server, each.usename, each.application_name
        names.setdefault(key, each.application_name)
        groups[key] = [*groups.get(key, ()), each]
    for server, name in lost:
        if not any((key[0], known) == (server, name) for key, known in names.items()):
            groups[server, "", name], names[server, "", name] = [], name
    owned = owned_pools(groups, names, folder)
    for home, claims in _at_home(young, owned).items():
        ours = (of_claim(each, home[0], at)._replace(usename=home[1], application_name=home[2]) for each in claims)
        groups[home] = [*groups[home], *ours]
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


def _at_home(young: Iterable[tuple[Claim, str]], owned: Mapping[Key, Sequence[Owned]]) -> dict[Key, list[Claim]]:
    """By the application on that server which has their pool; without one they are shown when the server is read again."""
    homes = {(key[0], id(pool)): key for key, pools in owned.items() for _, pool in pools}
    found: dict[Key, list[Claim]] = {}
    for claim, server in young:
        home = homes.get((server, id(claim.pool)))
        if home is not None:
            found.setdefault(home, []).append(claim)
    return found


def _badness(application: Application) -> tuple[int, int, str, str]:
    bad = len(application.suspects) + application.piled + len(application.ended)
    return (-bad, -len(application.connections), application.server, application.name)


def _application(
    key: tuple[str, str, str],
    connections: Sequence[Connection],
    owned: Sequence[Owned],
    heaps: tuple[Heap, ...],
    ended: Sequence[Connection],
) -> Application:
    pools = [(each.snapshot.process, pool) for each, pool in owned]
    returned: Counter[str] = Counter()
    for _, pool in pools:
        returned.update(pool.counters.returned_by_gc)
    is_quiet = type(connections) is Quiet
    return Application(
        *key,
        connections if is_quiet else worst_first(connections),
        heaps,
        processes=len({process for process, _ in pools}),
        waiting=sum(pool.pending for _, pool in pools),
        timeouts=sum(pool.counters.timeouts for _, pool in pools),
        connections_max=sum(pool.connections_max for _, pool in pools),
        returned=returned,
        ended=tuple(sorted(ended, key=lambda each: -(each.since or 0))),
        tight=tight_pools(owned, (*(() if is_quiet else connections), *ended)),
    )


def _watch(folder: Folder) -> Watch:
    stale = sum(each.stale for each in folder.processes)
    return Watch(len(folder.processes), stale, dict(folder.skipped), folder.detail or folder.problem)


def place(frame: Frame) -> str:
    """`file:line`, the file without its folders."""
    return f"{frame.file.rpartition('/')[2]}:{frame.line}"
