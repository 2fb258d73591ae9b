"""What processes report of each of their connections: who has it, and whether that is in order. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from pgleak.pool.suspects import alive_limit, judge, limit_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pgleak.pool.reading import Reported
    from pgleak.pool.snapshot import Backend, Checkout, PoolSnapshot, ProcessIdentity
    from pgleak.pool.suspects import Verdict

Holder: TypeAlias = Literal["pooled", "in_use", "overdue", "owner_dead", "orphaned", "unclaimed", "unknown"]
#: Those that somebody has to do something about.
BAD_HOLDERS: frozenset[Holder] = frozenset({"overdue", "owner_dead", "orphaned", "unclaimed"})
GOOD_HOLDERS: frozenset[Holder] = frozenset({"pooled", "in_use"})
HOLDERS: tuple[Holder, ...] = ("pooled", "in_use", "overdue", "owner_dead", "orphaned", "unclaimed", "unknown")


class Claim(NamedTuple):
    """One connection that a process reports."""

    process: ProcessIdentity
    pool: PoolSnapshot
    backend: Backend
    holder: Holder
    checkout: Checkout | None = None
    verdict: Verdict | None = None
    silence: float = 0.0  # seconds since the process reported; it hangs when that is long
    limit: float = 0.0  # seconds that the checkout may be held
    patience: float = 0.0  # where the owner is dead: seconds that a living one might hold it


def claims_of(processes: Iterable[Reported]) -> Iterator[Claim]:
    """Every connection that the processes report, in use or not."""
    for reported in processes:
        process, silence = reported.snapshot.process, reported.silence
        verdicts = _verdicts(reported)
        for pool in reported.snapshot.pools:
            yield from [Claim(process, pool, backend, "pooled", None, None, silence) for backend in pool.idle]
            yield from [Claim(process, pool, backend, "orphaned", None, None, silence) for backend in pool.orphans]
            yield from _checkouts(reported, pool, pool.checkouts, verdicts)


def bad_checkouts_of(processes: Iterable[Reported]) -> Iterator[Claim]:
    """Those that are in use and should not be."""
    for reported in processes:
        verdicts = _verdicts(reported)
        for pool in reported.snapshot.pools:
            bad = [each for each in pool.checkouts if each.place == "orphaned" or each.number in verdicts]
            yield from _checkouts(reported, pool, bad, verdicts)


def _verdicts(reported: Reported) -> dict[int, Verdict]:
    return {verdict.checkout.number: verdict for verdict in judge(reported.snapshot)}


def _checkouts(
    reported: Reported, pool: PoolSnapshot, checkouts: Iterable[Checkout], verdicts: Mapping[int, Verdict]
) -> Iterator[Claim]:
    snapshot, silence = reported.snapshot, reported.silence
    for checkout in checkouts:
        verdict = verdicts.get(checkout.number)
        limit = verdict.limit if verdict is not None else limit_of(checkout, pool, snapshot.limits)
        holder = _holder(checkout, verdict)
        patience = alive_limit(pool.sites.get(checkout.site), snapshot.limits) if holder == "owner_dead" else 0.0
        yield Claim(snapshot.process, pool, checkout.backend, holder, checkout, verdict, silence, limit, patience)


def _holder(checkout: Checkout, verdict: Verdict | None) -> Holder:
    if checkout.place == "orphaned":
        return "orphaned"
    if verdict is None:
        return "in_use"
    return "owner_dead" if verdict.cause == "owner_dead" else "overdue"
