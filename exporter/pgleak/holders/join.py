"""The join of server backends with the pools that hold them: pure, one moment at a time.

An application names its server by an address of its own (an alias, a socket, a forwarded port), so addresses prove
nothing. What proves it is the backend's process id together with its start time, by the clock of this machine: for all
connections that one process has to one address, the server that shows most of them is the one. Where two servers show
them equally well, nothing is claimed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from pgleak.holders.claims import claims_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pgleak.holders.claims import Claim, Holder
    from pgleak.pool.reading import Reported
    from pgleak.pool.snapshot import ProcessIdentity
    from pgleak.postgres.backends import ServerBackend

#: Why nobody is named: two reports contradict each other, a report has this pid with another start, the role sees no times.
Doubt: TypeAlias = Literal["", "ambiguous", "other_start", "hidden"]
Reason: TypeAlias = Literal["pooler", "not_watched", "ambiguous", "no_pid"]
REASONS: tuple[Reason, ...] = ("pooler", "not_watched", "ambiguous", "no_pid")

#: The server starts a backend before the login, and the application notes the connection after it: a slow login lies between.
SLOWEST_LOGIN = 30.0
#: The other way round it is the imprecision of two clocks that are read one after the other.
IMPRECISION = 2.0
#: Two servers in containers that were started together number their backends alike; then it counts which one fits to the moment.
PROMPT_LOGIN = 0.5
#: Linux has no greater process id (PID_MAX_LIMIT in include/linux/threads.h). PgBouncer hands out 32 random bits.
GREATEST_PID = 2**22


class Held(NamedTuple):
    """One backend, and who holds it; without a claim nobody that reports does."""

    backend: ServerBackend
    holder: Holder
    claim: Claim | None = None
    doubt: Doubt = ""


@dataclass(frozen=True, slots=True)
class Unplaced:
    """Connections of one process to one address that are on no server that is watched."""

    process: ProcessIdentity
    application_name: str
    address: str
    connections: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Join:
    """Every backend once, in the order of the servers, and the reports that found none."""

    held: tuple[Held, ...] = ()
    unplaced: tuple[Unplaced, ...] = ()
    reported: frozenset[str] = frozenset()  # application names that some process reports
    places: Mapping[tuple[ProcessIdentity, str], str] = field(
        default_factory=dict
    )  # server, by process and its address


class _Fit(NamedTuple):
    """Which connections of one process to one address one server shows."""

    server: str
    score: _Score
    same: list[tuple[int, Claim]]  # backends by index, and the reports about them
    other: list[int]  # backends that have only the process id of one that is reported


class _Score(NamedTuple):
    """How well one server fits the connections of one process to one address; greater fits better."""

    matches: int = 0
    databases: int = 0
    names: int = 0
    host_and_port: bool = False
    prompt: int = 0  # matches with a login as fast as logins usually are
    port: bool = False


def join(
    backends: Sequence[ServerBackend],
    processes: Iterable[Reported],
    addresses: Mapping[str, str] | None = None,
    asked: Mapping[str, float] | None = None,
) -> Join:
    """Say of each backend who holds it.

    ``addresses`` are `host:port` of the servers, by name, as a last resort. ``asked`` is when each was read, in Unix time:
    with it, a connection that somebody uses after the death of the thread that took it counts as handed on, and one that
    was opened later is not missed on any server.
    """
    since = min(asked.values(), default=math.inf) if asked else math.inf
    servers: dict[str, dict[int, int]] = {}
    for index, backend in enumerate(backends):
        servers.setdefault(backend.server, {})[backend.pid] = index
    claimed: dict[int, tuple[_Score, Claim]] = {}
    doubts: dict[int, Doubt] = {}
    unplaced: list[Unplaced] = []
    reported: set[str] = set()
    found: dict[tuple[ProcessIdentity, str], str] = {}
    for address, claims in _by_address(processes):
        reported.update(claim.pool.application_name for claim in claims)
        fits = [
            _fit(server, claims, backends, pids, address, (addresses or {}).get(server, ""))
            for server, pids in servers.items()
        ]
        best = max((fit.score for fit in fits), default=_Score())
        places = [fit for fit in fits if fit.score == best]
        if not best.matches:
            missed = [claim for claim in claims if claim.backend.opened <= since]
            unplaced += [_unplaced(missed, address, _why_nowhere(missed))] if missed else []
        elif len(places) > 1:
            unplaced.append(_unplaced(claims, address, "ambiguous"))
            for fit in places:
                doubts.update((index, "ambiguous") for index in (*fit.other, *(index for index, _ in fit.same)))
        else:
            _claim(places[0], claimed, doubts)
            found[claims[0].process, address] = places[0].server
    held = tuple(
        [
            # most are clear, and a call for each takes as long as all the rest
            Held(backend, known[1].holder, known[1])
            if (known := claimed.get(index)) and known[1].holder != "owner_dead" and index not in doubts
            else _held(index, backend, claimed, doubts, asked or {})
            for index, backend in enumerate(backends)
        ]
    )
    return Join(held, tuple(unplaced), frozenset(reported), found)


def _by_address(processes: Iterable[Reported]) -> Iterator[tuple[str, list[Claim]]]:
    for reported in processes:
        servers: dict[str, list[Claim]] = {}
        for claim in claims_of([reported]):
            group = servers.get(claim.backend.server)
            if group is None:
                servers[claim.backend.server] = group = []
            group.append(claim)
        groups: dict[str, list[Claim]] = {}
        for server, claims in servers.items():
            groups.setdefault(_split(server)[0], []).extend(claims)
        yield from groups.items()


def _fit(
    name: str,
    claims: list[Claim],
    backends: Sequence[ServerBackend],
    pids: Mapping[int, int],
    address: str,
    known: str,
) -> _Fit:
    """A report is about a backend, and not about one that had its process id before, where the start fits, too."""
    databases = names = prompt = 0
    same: list[tuple[int, Claim]] = []
    other: list[int] = []
    server, database = "", ""
    for claim in claims:
        connection = claim.backend
        index = pids.get(connection.pid or 0)
        if index is None:
            continue
        if connection.server is not server:  # as a rule it is the same for all
            server = connection.server
            database = _split(server)[1]
        backend = backends[index]
        late = connection.opened - backend.started if backend.started is not None else math.inf
        same_name = claim.pool.application_name == backend.application_name
        same_database = database == backend.datname
        if -IMPRECISION <= late <= SLOWEST_LOGIN and (same_name or same_database):
            same.append((index, claim))
            databases += same_database
            names += same_name
            prompt += -PROMPT_LOGIN < late < PROMPT_LOGIN
        else:
            other.append(index)
    same_port = bool(known) and known.rpartition(":")[2] == address.rpartition(":")[2]
    score = _Score(len(same), databases, names, known == address and bool(known), prompt, same_port)
    return _Fit(name, score, same, other)


@lru_cache(maxsize=1000)
def _split(server: str) -> tuple[str, str]:
    """The address and the database."""
    host, _, database = server.rpartition("/")
    return host, database


def _claim(fit: _Fit, claimed: dict[int, tuple[_Score, Claim]], doubts: dict[int, Doubt]) -> None:
    score = fit.score
    for index in fit.other:
        doubts.setdefault(index, "other_start")
    for index, claim in fit.same:
        before = claimed.get(index)
        if before is None or _is_inherited(claim) or (score > before[0] and not _is_inherited(before[1])):
            claimed[index] = score, claim
        elif score == before[0] and not _is_inherited(before[1]):
            doubts[index] = "ambiguous"


def _is_inherited(claim: Claim) -> bool:
    """Two processes speak over one connection: the parent that opened it, and the child that must not."""
    return claim.checkout is not None and claim.checkout.place == "inherited"


def _held(
    index: int,
    backend: ServerBackend,
    claimed: Mapping[int, tuple[_Score, Claim]],
    doubts: Mapping[int, Doubt],
    asked: Mapping[str, float],
) -> Held:
    doubt = doubts.get(index, "")
    known = claimed.get(index)
    if known is not None and doubt != "ambiguous":
        claim = known[1]
        if claim.holder == "owner_dead" and backend.server in asked:
            claim = _handed_on(claim, backend, asked[backend.server])
        return Held(backend, claim.holder, claim)
    return Held(backend, "unknown", None, doubt or ("hidden" if backend.started is None else ""))


def _handed_on(claim: Claim, backend: ServerBackend, asked: float) -> Claim:
    """Where it was used lately, and after its owner's death, somebody else works with it: judged as if the owner lived."""
    held, verdict = claim.checkout, claim.verdict
    if held is None or verdict is None or backend.unused is None or backend.unused > claim.patience:
        return claim
    died = held.checked_out_at + held.age - held.owner.dead_for
    if asked - backend.unused < died + IMPRECISION:
        return claim
    if held.age <= claim.patience:
        return claim._replace(holder="in_use", verdict=None, limit=claim.patience)
    verdict = replace(verdict, cause="overdue", limit=claim.patience)
    return claim._replace(holder="overdue", verdict=verdict, limit=claim.patience)


def _unplaced(claims: list[Claim], address: str, reason: Reason) -> Unplaced:
    return Unplaced(claims[0].process, claims[0].pool.application_name, address, len(claims), reason)


def _why_nowhere(claims: list[Claim]) -> Reason:
    pids = [claim.backend.pid for claim in claims if claim.backend.pid is not None]
    if not pids:
        return "no_pid"
    foreign = sum(not 0 < pid <= GREATEST_PID for pid in pids)
    return "pooler" if 2 * foreign > len(pids) else "not_watched"
