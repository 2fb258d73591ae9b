"""How fast a leak grows, against leaks whose pace is known."""

from __future__ import annotations

import random

import pytest

from pgleak.who.pace import pace

MINUTE, HOUR = 60.0, 3600.0


def found(births: list[float], now: float, unseen: float) -> list[float]:
    """The ages of those that are old enough to be judged."""
    return [now - birth for birth in births if now - birth > unseen]


@pytest.mark.parametrize("unseen", [5.0, MINUTE, 5 * MINUTE, HOUR])
def test_an_even_leak_is_told_at_its_pace_from_the_first_word_on(unseen: float) -> None:
    """240 an hour, one each 15 s; the time in which nothing can be judged does not make it look slower."""
    births = [15.0 * each for each in range(2000)]
    told = [pace(found(births, now, unseen), unseen) for now in range(int(unseen), int(unseen) + 1200, 7)]
    assert {round(each.per_hour) for each in told if each is not None} == {240}
    assert sum(each is None for each in told) <= 61 / 7 + 1


def test_leaks_by_chance_are_told_within_half_and_twice_once_ten_are_found() -> None:
    chance = random.Random(7)
    told = []
    for _ in range(400):
        births, now = [], 0.0
        for _ in range(11):
            births.append(now)
            now += chance.expovariate(1 / 15.0)
        each = pace(found(births, births[-1] + MINUTE + 1, MINUTE), MINUTE)
        if each is not None:
            told.append(each.per_hour / 240)
    assert len(told) > 380
    assert 0.9 < sorted(told)[len(told) // 2] < 1.2
    assert sum(0.5 < each < 2 for each in told) > 0.9 * len(told)


def test_a_burst_counts_as_ended_soon_after_it() -> None:
    """Twelve sessions taken within 35 s: 502 an hour on average, in truth none."""
    births = [35 / 11 * each for each in range(12)]
    for now in (121.0, 150.0, 300.0, 3 * HOUR):
        each = pace(found(births, now, MINUTE), MINUTE)
        assert each is not None
        assert each.has_stopped
        assert each.last == now - 35


def test_a_longer_silence_makes_it_slower_before_it_counts_as_the_end() -> None:
    births = [MINUTE * each for each in range(11)]
    told = []
    for silence in (0.0, 1.0, 2.0, 2.9, 3.1):
        each = pace(found(births, (10 + silence + 1) * MINUTE + 1e-6, MINUTE), MINUTE)
        assert each is not None
        told.append(round(each.per_hour))
    assert told == [60, 60, 55, 50, 0]


def test_few_or_within_a_minute_is_too_early_to_say() -> None:
    assert pace([5 * HOUR, HOUR], 0.0) is None
    assert pace([100.0, 90.0, 80.0], 60.0) is None
    assert pace([121.0, 90.0, 61.0], 60.0) is not None


def test_shorter_limits_make_it_less_early() -> None:
    """As in the demo, whose thresholds are seconds."""
    assert pace([19.0, 16.0, 13.0], 10.0) is None
    assert pace([21.0, 16.0, 11.0], 10.0) is not None


def test_an_old_straggler_does_not_make_it_slow() -> None:
    """One of 30 days ago and 60 in the last 37 minutes: 100 an hour, and not 0.1."""
    each = pace([30 * 24 * HOUR, *(36.0 * number for number in range(1, 61))], 5.0)
    assert each is not None
    assert round(each.per_hour) == 100


def test_what_began_at_one_moment_is_no_growth() -> None:
    each = pace([300.0] * 12, 60.0)
    assert each is not None
    assert each.has_stopped
