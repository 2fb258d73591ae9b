"""Which connections look leaked by themselves."""

from __future__ import annotations

import pytest

from pgleak.postgres.activity import Place
from pgleak.postgres.backends import backends
from pgleak.postgres.evidence import KINDS, Packed, Suspects, judge, kinds, newest_sessions
from pgleak.postgres.reader import Reading
from pgleak.settings import Thresholds

MINUTE = 60_000
HOUR = 60 * MINUTE
THRESHOLDS = Thresholds()


def pack(*connections: tuple[int, int, int], state: str = "idle", name: str = "app") -> Packed:
    """Each connection is (age, unused since, transaction since) in milliseconds."""
    session, unused, transaction = zip(*connections, strict=True)
    return Packed.of_ages(
        "db", "user", name, "10.0.0.1", state, session=session, unused=unused, transaction=transaction
    )


def judged(*packs: Packed) -> Suspects:
    newest = newest_sessions(packs)
    found = [judge(one, newest[one.origin], THRESHOLDS) for one in packs]
    return Suspects(*(sum(column) for column in zip(*found, strict=True)))


def test_a_connection_used_once_and_never_again_is_suspect_after_five_minutes() -> None:
    assert judged(pack((5 * MINUTE + 2_000, 5 * MINUTE + 1, -1))) == Suspects(never_reused=1)
    assert judged(pack((5 * MINUTE, 5 * MINUTE, -1))) == Suspects()


def test_a_connection_used_again_later_is_not_never_reused() -> None:
    assert judged(pack((20 * MINUTE, 14 * MINUTE, -1))) == Suspects()


def test_an_idle_connection_is_passed_over_when_its_pool_opened_a_younger_one_since() -> None:
    old = (10 * HOUR, 2 * HOUR, -1)
    assert judged(pack(old, (HOUR, MINUTE, -1))) == Suspects(passed_over=1)
    assert judged(pack(old, (3 * HOUR, MINUTE, -1))) == Suspects(), "opened before the last use: was busy then"


def test_a_younger_connection_of_any_state_proves_the_pass_over() -> None:
    old = pack((10 * HOUR, 2 * HOUR, -1))
    assert judged(old, pack((1_000, 0, 0), state="active")) == Suspects(passed_over=1)


def test_connections_of_another_origin_prove_nothing() -> None:
    old = pack((10 * HOUR, 2 * HOUR, -1))
    assert judged(old, pack((HOUR, MINUTE, -1), name="other")) == Suspects()


def test_a_pool_that_opens_several_at_once_passes_nobody_over() -> None:
    first, second = (10 * HOUR, 9 * HOUR, -1), (9 * HOUR - 900, MINUTE, -1)
    assert judged(pack(first, second)) == Suspects(), "opened 0.9 s after the last use: within the tolerance"
    third = (9 * HOUR - 1_100, MINUTE, -1)
    assert judged(pack(first, third)) == Suspects(passed_over=1)


def test_a_long_transaction_is_stuck_only_when_nothing_runs_in_it() -> None:
    stuck = (2 * HOUR, 90 * MINUTE, 61 * MINUTE)
    assert judged(pack(stuck, state="idle in transaction")) == Suspects(stuck_in_transaction=1)
    assert judged(pack(stuck, state="idle in transaction (aborted)")) == Suspects(stuck_in_transaction=1)
    assert judged(pack(stuck, state="active")) == Suspects()


@pytest.mark.parametrize("state", ["idle in transaction", "idle in transaction (aborted)"])
def test_a_transaction_in_which_nothing_is_sent_is_stuck_sooner(state: str) -> None:
    assert judged(pack((2 * HOUR, 16 * MINUTE, 20 * MINUTE), state=state)) == Suspects(stuck_in_transaction=1)
    assert judged(pack((2 * HOUR, 14 * MINUTE, 50 * MINUTE), state=state)) == Suspects(), "it goes on"


def test_what_is_idle_outside_of_a_transaction_may_rest_for_longer() -> None:
    assert judged(pack((2 * HOUR, 16 * MINUTE, -1))) == Suspects()


def test_who_was_used_once_is_not_called_stuck_until_its_transaction_is_old() -> None:
    once = (16 * MINUTE + 1_000, 16 * MINUTE, 16 * MINUTE)
    assert judged(pack(once, state="idle in transaction")) == Suspects(never_reused=1)


def test_each_connection_counts_once_under_the_first_evidence_that_fits() -> None:
    all_three = (5 * HOUR, 5 * HOUR - 1_000, 5 * HOUR - 1_000)
    younger = (MINUTE, 0, 0)
    assert judged(pack(all_three, younger, state="idle in transaction")) == Suspects(stuck_in_transaction=1)
    two = (5 * HOUR, 5 * HOUR - 1_000, -1)
    assert judged(pack(two, younger)) == Suspects(never_reused=1)


@pytest.mark.parametrize("state", ["active", "fastpath function call", "disabled", "starting", "(hidden)"])
def test_only_resting_connections_are_suspect(state: str) -> None:
    assert judged(pack((9 * HOUR, 9 * HOUR, 9 * HOUR), (1, 0, -1), state=state)) == Suspects()


def test_hidden_ages_give_no_newest_session() -> None:
    assert newest_sessions([pack((-1, -1, -1), state="(hidden)")]) == {}


def test_what_is_said_of_each_connection_adds_up_to_the_counts() -> None:
    ages = [0, 4_000, 200_000, 400_000, 3_700_000, 9_000_000, 90_000_000]
    rows = [
        (session, unused, since) for session in ages for unused in ages for since in (-1, *ages) if unused <= session
    ]
    whole = pack(*rows)
    counted = judge(whole, -1_000_000, THRESHOLDS)
    each = kinds(whole, -1_000_000, THRESHOLDS)
    assert [each.count(kind) for kind in KINDS] == list(counted)
    assert min(counted) > 0


@pytest.mark.parametrize(
    ("connection", "state", "evidence", "limit"),
    [
        ((2 * HOUR, 16 * MINUTE, 20 * MINUTE), "idle in transaction", "stuck_in_transaction", 900),
        ((2 * HOUR, 2 * MINUTE, 61 * MINUTE), "idle in transaction", "stuck_in_transaction", 3600),
        ((2 * HOUR, 14 * MINUTE, 50 * MINUTE), "idle in transaction", "", 900),
        ((2 * HOUR, MINUTE, 59 * MINUTE), "idle in transaction", "", 120),  # in a minute
        ((2 * HOUR, 14 * MINUTE, -1), "idle", "", 3600),
        ((4 * MINUTE, 4 * MINUTE, 4 * MINUTE), "idle in transaction", "", 300),
        ((2 * HOUR, 14 * MINUTE, 50 * MINUTE), "active", "", 0),
        ((-1, -1, -1), "(hidden)", "", 0),
    ],
)
def test_a_connection_comes_with_the_time_that_it_may_be_as_it_is(
    connection: tuple[int, int, int], state: str, evidence: str, limit: float
) -> None:
    seen = pack(connection, state=state)._replace(pid_array="{1}")
    (found,) = backends(Reading("db", packs=(seen,), places=(Place(("app",), "app", False),)), THRESHOLDS)
    assert (found.evidence, found.limit) == (evidence, limit)
