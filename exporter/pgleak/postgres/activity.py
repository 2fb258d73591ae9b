"""From the rows of ``activity.sql`` and ``server.sql`` to what is known of a server and its applications."""

from __future__ import annotations

import struct
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pgleak.metrics import AGE_BUCKETS
from pgleak.postgres.evidence import NO_SUSPECTS, RESTING, Packed, Suspects, judge, newest_sessions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgleak.settings import Thresholds

HIDDEN = "(hidden)"
"""State of connections whose state the exporter's role may not see."""

STATES: dict[str, str] = {
    "active": "Runs a query.",
    "idle": "Waits for its client, outside of a transaction.",
    "idle in transaction": "Waits for its client, inside of a transaction.",
    "idle in transaction (aborted)": "The same, after an error in the transaction.",
    "fastpath function call": "Runs a function by the fast-path interface.",
    "disabled": "`track_activities` is off for its role, database or session.",
    "starting": "Has not logged in yet (PostgreSQL 18 and later), under the application `(starting)`.",
    "(unknown)": "The server gives no state.",
    HIDDEN: "The exporter's role may not see it.",
}
"""State -> what it means: those of ``pg_stat_activity``, and in brackets our own; the values of the label ``state``."""

LOCAL = "(local)"
"""Client address of connections over a Unix socket."""

_SECOND = 1_000_000  # microseconds
_BOUNDS = tuple(int(bound * _SECOND) for bound in AGE_BUCKETS)


@dataclass(frozen=True, slots=True)
class Ages:
    """A histogram of ages: ``counts`` are cumulative per bound of ``AGE_BUCKETS`` with +Inf last; seconds."""

    counts: tuple[int, ...] = (0,) * (len(AGE_BUCKETS) + 1)
    total: float = 0.0
    oldest: float = 0.0

    @classmethod
    def of(cls, times: list[int], now: int) -> Ages:
        """Return the histogram of what began at these times, in microseconds; 0 for what began after ``now``."""
        if not times:
            return _NO_AGES
        times.sort()
        if times[-1] > now:
            times = [min(time, now) for time in times]
        number = len(times)
        counts = tuple([number - bisect_left(times, now - bound) for bound in _BOUNDS])
        return cls((*counts, number), (number * now - sum(times)) / _SECOND, (now - times[0]) / _SECOND)


_NO_AGES = Ages()


class Place(NamedTuple):
    """Where a pack of connections belongs: its application's label values, and whether it is exempt from judgement."""

    key: tuple[str, ...]  # in the order of ``group_by``
    name: str  # the label application_name, whether it is part of the key or not
    ignored: bool = False


@dataclass(frozen=True, slots=True)
class Application:
    """What one application holds on one server, now. Which connections form one application is the caller's choice."""

    states: Mapping[str, int]
    idle: Ages = _NO_AGES
    session: Ages = _NO_AGES
    suspects: Suspects = NO_SUSPECTS
    oldest_transaction: float = 0.0  # seconds
    ignored: bool = False  # the settings exempt all of it from judgement

    @property
    def connections(self) -> int:
        return sum(self.states.values())

    @property
    def visible(self) -> bool:
        """Whether the ages of at least one connection are known; where not, they are left out, not 0."""
        return any(state != HIDDEN for state in self.states)


@dataclass(frozen=True, slots=True)
class Server:
    """Limits, facts and counters of one server; names as the server has them."""

    max_connections: int
    superuser_reserved: int
    reserved: int  # reserved_connections, PostgreSQL 16 and later; 0 before
    postmaster_start: float  # Unix time by the server's clock
    superuser: bool  # whether the exporter's role is one
    stats_visible: bool
    may_use_reserved: bool
    role_limits: Mapping[str, int] = field(default_factory=dict)
    database_limits: Mapping[str, int] = field(default_factory=dict)
    sessions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # counter -> database -> value

    @property
    def usable(self) -> int:
        """Connections at which ordinary roles are refused."""
        return self.max_connections - self.superuser_reserved - self.reserved


def used(packs: Iterable[Packed]) -> int:
    """Return the number of connection slots taken."""
    return sum(pack.size for pack in packs)


def packed(rows: Iterable[Sequence[Any]]) -> list[Packed]:
    """Turn the rows of ``activity.sql`` into data."""
    return [
        Packed(
            _text(datname),
            _text(usename),
            _text(application_name),
            HIDDEN if state == HIDDEN else client_addr or LOCAL,
            state,
            _times(now)[0],
            _times(session_start),
            _times(state_change),
            None if transaction_start is None else _times(transaction_start),
            pids,
        )
        for datname, usename, application_name, client_addr, state, now, session_start, state_change, transaction_start, pids in rows
    ]


def _times(column: bytes | memoryview) -> tuple[int, ...]:
    """Read times as PostgreSQL sends them: microseconds since 2000, in network byte order; infinity is ``UNKNOWN``."""
    return struct.unpack(f">{len(column) // 8}q", column)


def server(rows: Iterable[tuple[str, str, float | None]]) -> Server:
    """Turn the (kind, name, value) rows of ``server.sql`` into data.

    Raises ``KeyError`` when the server did not say something that every supported version says.
    """
    facts: dict[str, dict[str, float]] = {}
    for kind, name, value in rows:
        if value is not None:
            facts.setdefault(kind, {})[_text(name)] = value
    setting, fact, member = facts["setting"], facts["fact"], facts.get("member", {})
    return Server(
        max_connections=int(setting["max_connections"]),
        superuser_reserved=int(setting["superuser_reserved_connections"]),
        reserved=int(setting.get("reserved_connections", 0)),
        postmaster_start=fact["postmaster_start"],
        superuser=bool(fact["superuser"]),
        stats_visible=bool(member.get("pg_read_all_stats")),
        may_use_reserved=bool(member.get("pg_use_reserved_connections")),
        role_limits={name: int(limit) for name, limit in facts.get("role_limit", {}).items()},
        database_limits={name: int(limit) for name, limit in facts.get("database_limit", {}).items()},
        sessions={kind: values for kind, values in facts.items() if kind.startswith("sessions")},
    )


def summarise(
    packs: Sequence[Packed], places: Sequence[Place], thresholds: Thresholds
) -> dict[tuple[str, ...], Application]:
    """Judge every connection and sum up per application; ``places[i]`` says where ``packs[i]`` belongs.

    Judgement comes before summing: two pools that end up under one key are still judged apart, and where only a part of
    an application is ignored, the rest is judged.
    """
    newest = newest_sessions(packs)
    members: dict[tuple[str, ...], list[tuple[Packed, bool]]] = {}
    for pack, (key, _, ignored) in zip(packs, places, strict=True):
        members.setdefault(key, []).append((pack, ignored))
    return {key: _application(group, newest, thresholds) for key, group in members.items()}


def _application(
    packs: Sequence[tuple[Packed, bool]], newest: Mapping[tuple[str, str, str, str], int], thresholds: Thresholds
) -> Application:
    states: dict[str, int] = {}
    idle: list[int] = []
    session: list[int] = []
    suspects = (0, 0, 0)
    now = oldest_transaction = packs[0][0].now
    for pack, ignored in packs:
        states[pack.state] = states.get(pack.state, 0) + pack.size
        if pack.state == HIDDEN:
            continue
        session += pack.session_start
        if pack.transaction_start:
            oldest_transaction = min(oldest_transaction, *pack.transaction_start)
        if pack.state in RESTING:
            idle += pack.state_change
            if ignored:
                continue
            found = judge(pack, newest.get(pack.origin, now), thresholds)
            suspects = (suspects[0] + found[0], suspects[1] + found[1], suspects[2] + found[2])
    return Application(
        states,
        Ages.of(idle, now),
        Ages.of(session, now),
        Suspects(*suspects),
        (now - oldest_transaction) / _SECOND,
        all(ignored for _, ignored in packs),
    )


def _text(name: str) -> str:
    """Undo the Latin-1 reading of :mod:`pgleak.postgres.connection`.

    Shared catalogues hold the bytes of each database's own encoding; almost all is UTF-8, and what is not must not fail
    the read.
    """
    return name if name.isascii() else name.encode("latin-1").decode("utf-8", "replace")
