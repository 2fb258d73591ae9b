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

FIRST_USE = 5_000_000
"""Microseconds: a connection counts as never reused when nothing happened on it after its first five seconds."""

SIMULTANEOUS = 1_000_000
"""Microseconds: a connection that was opened so soon after the last use proves no pass-over; pools open several at once."""

UNKNOWN = 2**63 - 1
"""In the place of a time that the server does not tell: the future, so that nothing is ever suspected for it."""

_SECOND = 1_000_000


class Packed(NamedTuple):
    """Connections of one application, user, database, client address and state.

    Times are microseconds of one clock, the same for all packs of one snapshot, of which ``now`` is the moment. The
    sequences are aligned, one entry per connection: when it was opened, when its state last changed, when its transaction
    began; None in place of the last says that none is in a transaction. ``application_name`` is as the server has it.
    """

    datname: str
    usename: str
    application_name: str
    client_addr: str
    state: str
    now: int
    session_start: Sequence[int]
    state_change: Sequence[int]
    transaction_start: Sequence[int] | None = None
    pid_array: str = "{}"  # as the server has it: read only by those who ask about single connections

    @classmethod
    def of_ages(
        cls,
        *origin_and_state: str,
        session: Iterable[int],
        unused: Iterable[int],
        transaction: Iterable[int] = (),
        pids: Iterable[int] = (),
    ) -> Packed:
        """Make one from ages in milliseconds, -1 where there is none."""
        session_start, state_change, transaction_start = (
            [UNKNOWN if age < 0 else -1000 * age for age in ages] for ages in (session, unused, transaction)
        )
        datname, usename, application_name, client_addr, state = origin_and_state
        return cls(
            *(datname, usename, application_name, client_addr, state, 0, session_start, state_change),
            transaction_start or None,
            f"{{{','.join(map(str, pids))}}}",
        )

    @property
    def size(self) -> int:
        """Number of connections."""
        return len(self.session_start)

    @property
    def pids(self) -> list[int]:
        """Process ids of the backends."""
        numbers: list[int] = json.loads(f"[{self.pid_array[1:-1]}]")  # the fastest reader of integers at hand
        return numbers

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
    """Return when each origin's youngest connection was opened; origins whose times are hidden are left out."""
    newest: dict[tuple[str, str, str, str], int] = {}
    for pack in packs:
        youngest = max(pack.session_start, default=UNKNOWN)
        if youngest != UNKNOWN:
            newest[pack.origin] = max(youngest, newest.get(pack.origin, youngest))
    return newest


def judge(pack: Packed, newest: int, thresholds: Thresholds) -> Suspects:
    """Count the suspects among connections of one state.

    ``newest`` is when the youngest connection of the same origin was opened, whatever its state. A connection is

    - *stuck in transaction* when its transaction is older than the threshold, or, where no other kind fits, when its client
      has sent nothing for longer than the threshold for that,
    - *never reused* when it was used only in its first five seconds and has been idle for longer than the threshold,
    - *passed over* when it has been idle for longer than the threshold and its origin opened a younger connection after
      its last use: a pool opens a new connection only when none is free, so this one is not free.
    """
    changes, transactions = pack.state_change, pack.transaction_start
    if pack.state not in RESTING:
        return NO_SUSPECTS
    stuck_before = pack.now - thresholds.stuck_in_transaction * _SECOND
    never_before = pack.now - thresholds.never_reused * _SECOND
    passed_before = min(pack.now - thresholds.passed_over * _SECOND, newest - SIMULTANEOUS)
    oldest = min(changes)
    silent_before = pack.now - thresholds.idle_in_transaction * _SECOND
    none_stuck = transactions is None or (min(transactions) >= stuck_before and oldest >= silent_before)
    if none_stuck and oldest >= never_before and oldest >= passed_before:
        return NO_SUSPECTS
    stuck = never = passed = 0
    for begun, change, start in zip(transactions or [UNKNOWN] * len(changes), changes, pack.session_start, strict=True):
        if begun < stuck_before:
            stuck += 1
        elif change < never_before and change - start < FIRST_USE:
            never += 1
        elif change < passed_before:
            passed += 1
        elif begun != UNKNOWN and change < silent_before:
            stuck += 1
    return Suspects(stuck, never, passed)


def kinds(pack: Packed, newest: int, thresholds: Thresholds) -> list[str]:
    """Say for each connection which evidence counts it in :func:`judge`, "" for none."""
    if judge(pack, newest, thresholds) == NO_SUSPECTS:
        return [""] * pack.size
    return [
        next((kind for kind, found in zip(KINDS, judge(one, newest, thresholds), strict=True) if found), "")
        for one in _each(pack)
    ]


def _each(pack: Packed) -> Iterator[Packed]:
    for index, start in enumerate(pack.session_start):
        transactions = pack.transaction_start and pack.transaction_start[index : index + 1]
        yield pack._replace(
            session_start=(start,), state_change=(pack.state_change[index],), transaction_start=transactions
        )
