"""When a checkout counts as a suspect: a judgement over plain data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pgleak.pool.snapshot import Checkout, Expected, Limits, Owner, ProcessSnapshot, SiteStatistics
from pgleak.pool.suspects import alive_limit, judge
from state_support import SITE, a_checkout, a_pool, a_snapshot

if TYPE_CHECKING:
    from pgleak.pool.snapshot import OwnerState

CHECKOUT = replace(a_checkout(age=0.0), expected=None)


def snapshot(
    *checkouts: Checkout, sites: dict[str, SiteStatistics] | None = None, limits: Limits | None = None
) -> ProcessSnapshot:
    pool = replace(a_pool(), checkouts=checkouts, sites=sites or {})
    return replace(a_snapshot(pool), limits=limits or Limits())


def causes(checkout: Checkout, **context: Any) -> list[str]:
    return [verdict.cause for verdict in judge(snapshot(checkout, **context))]


def owned(state: OwnerState, age: float, **changes: Any) -> Checkout:
    """Checked out `age` seconds ago by an owner that died at once, if it is dead."""
    return replace(CHECKOUT, age=age, owner=Owner("thread", "worker", state, age if state == "dead" else 0), **changes)


def test_a_dead_owner_counts_from_its_death() -> None:
    """However long it had held the connection before: its successor may be about to close it."""
    just_died = replace(CHECKOUT, age=3600.0, owner=Owner("thread", "worker", "dead", 4.9))
    assert causes(just_died) == []
    assert causes(replace(just_died, owner=Owner("thread", "worker", "dead", 5.1))) == ["owner_dead"]


def test_a_dead_owner_after_five_seconds() -> None:
    assert causes(owned("dead", 4.9)) == []
    assert causes(owned("dead", 5.1)) == ["owner_dead"]


@pytest.mark.parametrize("state", ["alive", "unknown"])
def test_an_unproven_site_after_a_minute(state: OwnerState) -> None:
    few = {SITE: SiteStatistics(samples=19, p99=0.01)}
    assert causes(owned(state, 59)) == causes(owned(state, 59), sites=few) == []
    assert causes(owned(state, 61)) == causes(owned(state, 61), sites=few) == ["overdue"]


@pytest.mark.parametrize(("p99", "limit"), [(0.01, 30.0), (6.0, 30.0), (7.0, 35.0), (100.0, 500.0)])
def test_a_proven_site_by_its_own_habits(p99: float, limit: float) -> None:
    sites = {SITE: SiteStatistics(samples=20, p99=p99)}
    assert alive_limit(sites[SITE], Limits()) == limit
    assert causes(owned("alive", limit - 0.1), sites=sites) == []
    assert causes(owned("alive", limit + 0.1), sites=sites) == ["overdue"]


def test_known_long_work_has_its_own_limit() -> None:
    report = Expected("report", 900.0)
    assert causes(owned("alive", 899, expected=report)) == []
    assert causes(owned("alive", 901, expected=report)) == ["overdue"]
    assert causes(owned("dead", 6, expected=report)) == ["owner_dead"]


def test_what_no_pool_counts_is_called_so() -> None:
    assert causes(owned("alive", 61, place="detached")) == ["detached"]
    assert causes(owned("dead", 6, place="orphaned")) == ["orphaned"]
    assert causes(owned("alive", 59, place="orphaned")) == []
    assert causes(owned("alive", 0.001, place="inherited")) == ["inherited"]


def test_limits_can_be_set() -> None:
    strict = Limits(dead_owner=1, alive_owner=2, unproven_site=3, samples=1)
    assert causes(owned("dead", 1.1), limits=strict) == ["owner_dead"]
    assert causes(owned("alive", 3.1), limits=strict) == ["overdue"]
    assert causes(owned("alive", 2.1), limits=strict, sites={SITE: SiteStatistics(1, 0.1)}) == ["overdue"]


def test_the_longest_held_comes_first() -> None:
    verdicts = judge(snapshot(owned("alive", 70, number=1), owned("alive", 90, number=2), owned("alive", 80, number=3)))
    assert [verdict.checkout.number for verdict in verdicts] == [2, 3, 1]
    assert {verdict.limit for verdict in verdicts} == {60.0}
