"""Which checkouts look leaked: a pure judgement over one process's snapshot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from pgleak.pool.snapshot import Checkout, EngineSite, Frame, Limits, PoolSnapshot, ProcessSnapshot, SiteStatistics

Cause: TypeAlias = Literal["owner_dead", "overdue", "detached", "orphaned", "inherited"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A checkout that is held beyond its limit, and what seems to be wrong with it."""

    pool: str
    checkout: Checkout
    cause: Cause
    limit: float  # seconds that would have been in order


#: So many engines of one line whose connections nobody uses again are no accident.
PILE = 10
#: So many for the same address, database and role in one process count towards it: each of many workers makes its few.
SEVERAL = 3


@dataclass(frozen=True, slots=True)
class Pile:
    """Engines that one place in the code makes over and over, each of which keeps connections open that it used once."""

    pool: str
    made: EngineSite


def piled_up(snapshot: ProcessSnapshot) -> tuple[Pile, ...]:
    """The places that make an engine per call: one per tenant comes back to its engine, one per request never does."""
    return tuple(Pile(pool.name, made) for pool in snapshot.pools for made in piled_in(pool))


def piled_in(pool: PoolSnapshot) -> tuple[EngineSite, ...]:
    """Those of one pool in one process, by line; a pile where all its processes have `PILE` of them.

    Of those who called the line, the one that has made most stands for all.
    """
    lines: dict[tuple[Frame, ...], EngineSite] = {}
    for made in sorted(pool.made, key=lambda each: -each.unused):
        line = lines.setdefault(made.frames[:1], replace(made, engines=0, unused=0))
        lines[made.frames[:1]] = replace(line, engines=line.engines + made.engines, unused=line.unused + made.unused)
    return tuple(line for line in lines.values() if line.unused)


def judge(snapshot: ProcessSnapshot) -> tuple[Verdict, ...]:
    """Every suspect of the process, the longest held first."""
    verdicts = [
        Verdict(pool.name, checkout, _cause(checkout), limit)
        for pool in snapshot.pools
        for checkout in pool.checkouts
        if _counted(checkout) > (limit := limit_of(checkout, pool, snapshot.limits))
    ]
    return tuple(sorted(verdicts, key=lambda verdict: -verdict.checkout.age))


def _counted(checkout: Checkout) -> float:
    """The seconds that count against the limit: for a dead owner those since its death, as somebody else may close."""
    if checkout.owner.state == "dead" and checkout.place != "inherited":
        return checkout.owner.dead_for
    return checkout.age


def limit_of(checkout: Checkout, pool: PoolSnapshot, limits: Limits) -> float:
    """How long this checkout may be held, in seconds; after its owner's death, where that is dead."""
    if checkout.place == "inherited":
        return 0.0  # two processes that speak over one connection are wrong from the first word
    if checkout.owner.state == "dead":
        return limits.dead_owner
    if checkout.expected is not None:
        return checkout.expected.max_seconds
    return alive_limit(pool.sites.get(checkout.site), limits)


def alive_limit(site: SiteStatistics | None, limits: Limits) -> float:
    """How long a living owner may hold what this site checked out: known by its own habits, else a fixed time."""
    if site is None or site.samples < limits.samples:
        return limits.unproven_site
    return max(limits.alive_owner, limits.alive_factor * site.p99)


def _cause(checkout: Checkout) -> Cause:
    if checkout.place != "pool":
        return checkout.place
    return "owner_dead" if checkout.owner.state == "dead" else "overdue"
