"""Which connections look leaked by themselves: a pure judgement on ages, from one snapshot.

The rules and their figures come from a study of simulated leaks and loads; each connection counts under the first
kind of evidence that fits, so that the sum over the kinds is the number of suspects.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pgleak.settings import Thresholds

KINDS = ("stuck_in_transaction", "never_reused", "passed_over")
"""Kinds of evidence in order of precedence; the values of the label ``evidence``."""

RESTING = frozenset({"idle", "idle in transaction", "idle in transaction (aborted)"})
"""States of ``pg_stat_activity`` in which a connection waits for its client."""

FIRST_USE_MS = 5_000
"""A connection counts as never reused when nothing happened on it after its first five seconds."""

SIMULTANEOUS_MS = 1_000
"""Connections opened within one second of the last use do not prove a pass-over: a pool that fills opens several."""


def integers(array: str) -> list[int]:
    """Read a PostgreSQL array of integers; as JSON, which is the fastest reader at hand."""
    numbers: list[int] = json.loads(f"[{array[1:-1]}]")
    return numbers


class Packed(NamedTuple):
    """Connections of one application, user, database, client address and state.

    The lists are aligned, one entry per connection; ages in milliseconds, -1 where the server does not say.
    ``session_ms`` is the time since the connection was opened, ``unused_ms`` since its state last changed,
    ``transaction_ms`` since its transaction began. ``application_name`` is as the server has it.
    """

    datname: str
    usename: str
    application_name: str
    client_addr: str
    state: str
    session_ms: Sequence[int]
    unused_ms: Sequence[int]
    transaction_ms: Sequence[int]
    pid_array: str = "{}"  # as the server has it: read only by those who ask about single connections

    @property
    def pids(self) -> list[int]:
        """Process ids of the backends."""
        return integers(self.pid_array)

    @property
    def origin(self) -> tuple[str, str, str, str]:
        """What one pool's connections have in common."""
        return self[:4]


class Suspects(NamedTuple):
    """Numbers of connections per kind of evidence, in the order of :data:`KINDS`."""

    stuck_in_transaction: int = 0
    never_reused: int = 0
    passed_over: int = 0


NO_SUSPECTS = Suspects()


def newest_sessions(packs: Iterable[Packed]) -> dict[tuple[str, str, str, str], int]:
    """Return the age in milliseconds of each origin's youngest connection; origins with hidden ages are left out."""
    newest: dict[tuple[str, str, str, str], int] = {}
    for pack in packs:
        youngest = min(pack.session_ms, default=-1)
        if youngest >= 0:
            newest[pack.origin] = min(youngest, newest.get(pack.origin, youngest))
    return newest


def judge(pack: Packed, newest_ms: int, thresholds: Thresholds) -> Suspects:
    """Count the suspects among connections of one state.

    ``newest_ms`` is the age of the youngest connection of the same origin, whatever its state. A connection is

    - *stuck in transaction* when its transaction is older than the threshold,
    - *never reused* when it was used only in its first five seconds and has been idle for longer than the threshold,
    - *passed over* when it has been idle for longer than the threshold and its origin opened a younger connection after
      its last use: a pool opens a new connection only when none is free, so this one is not free.
    """
    if pack.state not in RESTING:
        return NO_SUSPECTS
    stuck_ms = thresholds.stuck_in_transaction * 1000
    never_ms = thresholds.never_reused * 1000
    passed_ms = thresholds.passed_over * 1000
    if max(pack.unused_ms) <= min(never_ms, passed_ms) and max(pack.transaction_ms) <= stuck_ms:
        return NO_SUSPECTS
    newest_ms += SIMULTANEOUS_MS
    stuck = never = passed = 0
    for session, unused, transaction in zip(pack.session_ms, pack.unused_ms, pack.transaction_ms, strict=True):
        if transaction > stuck_ms:
            stuck += 1
        elif unused > never_ms and session - unused < FIRST_USE_MS:
            never += 1
        elif unused > passed_ms and unused > newest_ms:
            passed += 1
    return Suspects(stuck, never, passed)


def kinds(pack: Packed, newest_ms: int, thresholds: Thresholds) -> list[str]:
    """Say for each connection which evidence counts it in :func:`judge`, "" for none."""
    if judge(pack, newest_ms, thresholds) == NO_SUSPECTS:
        return [""] * len(pack.session_ms)
    return [
        next((kind for kind, found in zip(KINDS, judge(one, newest_ms, thresholds), strict=True) if found), "")
        for one in _each(pack)
    ]


def _each(pack: Packed) -> Iterator[Packed]:
    for session, unused, transaction in zip(pack.session_ms, pack.unused_ms, pack.transaction_ms, strict=True):
        yield pack._replace(session_ms=(session,), unused_ms=(unused,), transaction_ms=(transaction,))
