"""Single connections, from the packed rows of one reading: for those who ask about one and not about a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from pgleak.postgres.evidence import FIRST_USE, RESTING, UNKNOWN, kinds, newest_sessions

if TYPE_CHECKING:
    from pgleak.postgres.reader import Reading
    from pgleak.settings import Thresholds

#: server, database, user, application name as the server has it, client address: what one pool's connections share.
Origin: TypeAlias = tuple[str, str, str, str, str]


class ServerBackend(NamedTuple):
    """One client connection as the server sees it. Ages in seconds, None where the role may not see them."""

    server: str
    pid: int
    started: float | None  # Unix time by the exporter's clock: now less the age, so the server's clock plays no part
    datname: str
    usename: str
    application_name: str  # as the server has it
    label: str  # the application_name of the metrics: rewritten, capped
    client_addr: str
    state: str
    unused: float | None  # since its state last changed
    transaction: float | None  # age of the open transaction
    evidence: str = ""  # why it looks leaked by itself, a kind of `evidence.KINDS`; only where that was asked for
    limit: float = 0.0  # seconds that it may be as it is before it looks leaked; 0 where it is never judged so

    @property
    def origin(self) -> Origin:
        return (self.server, self.datname, self.usename, self.application_name, self.client_addr)


def backends(reading: Reading, thresholds: Thresholds | None = None) -> tuple[ServerBackend, ...]:
    """Every client connection of the reading; with thresholds, each judged, but for ignored applications."""
    newest = newest_sessions(reading.packs)
    found = []
    for pack, (_, label, ignored) in zip(reading.packs, reading.places, strict=True):
        datname, usename, name, address, state, now, sessions, changes, transactions, _ = pack
        pids = pack.pids
        evidence = (
            kinds(pack, newest.get(pack.origin, now), thresholds) if thresholds and not ignored else [""] * len(pids)
        )
        begun = transactions or [UNKNOWN] * len(pids)
        for pid, start, change, transaction, kind in zip(pids, sessions, changes, begun, evidence, strict=True):
            age, unused, opened = _age(start, now), _age(change, now), _age(transaction, now)
            found.append(
                ServerBackend(
                    reading.name,
                    pid,
                    None if age is None else reading.asked - age,
                    datname,
                    usename,
                    name,
                    label,
                    address,
                    state,
                    unused,
                    opened,
                    kind,
                    0.0
                    if thresholds is None or ignored
                    else _limit(kind, unused, opened, state, thresholds, is_first_use=change - start < FIRST_USE),
                )
            )
    return tuple(found)


def _limit(
    kind: str,
    unused: float | None,
    transaction: float | None,
    state: str,
    thresholds: Thresholds,
    *,
    is_first_use: bool,
) -> float:
    """For how long it may be unused until it looks leaked; of one that does, the threshold that it went beyond."""
    if kind == "stuck_in_transaction" and unused is not None and unused > thresholds.idle_in_transaction:
        return thresholds.idle_in_transaction
    if kind:
        return float(getattr(thresholds, kind))
    if state not in RESTING or unused is None:
        return 0.0
    limit = thresholds.never_reused if is_first_use else thresholds.passed_over
    if transaction is None:
        return limit
    if not is_first_use:
        limit = thresholds.idle_in_transaction
    return min(limit, unused + thresholds.stuck_in_transaction - transaction)


def _age(time: int, now: int) -> float | None:
    """Return seconds, 0 for what happened after the server began to look."""
    return None if time == UNKNOWN else max(now - time, 0) / 1_000_000
