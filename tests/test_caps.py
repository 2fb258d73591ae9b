"""What others choose is bounded: values of labels, and counters of databases, with sums that stay true."""

from __future__ import annotations

from pgleak.postgres.caps import KEEP_SECONDS, OTHER, CounterCap, StickyCap

HOUR = KEEP_SECONDS


def test_the_cap_admits_the_largest_first_and_counts_what_it_folds() -> None:
    cap = StickyCap(2)
    cap.update({"small": 1, "large": 9, "middle": 5}, 0.0)
    assert [cap.label(name) for name in ("small", "large", "middle")] == [OTHER, "large", "middle"]
    assert cap.overflowed == 1


def test_who_was_admitted_stays_however_large_the_newcomers() -> None:
    cap = StickyCap(2)
    cap.update({"first": 1, "second": 1}, 0.0)
    cap.update({"first": 1, "giant": 500}, 60.0)
    assert [cap.label(name) for name in ("first", "second", "giant")] == ["first", "second", OTHER]


def test_a_place_is_free_an_hour_after_its_name_was_last_seen() -> None:
    cap = StickyCap(1)
    cap.update({"first": 1}, 0.0)
    cap.update({"second": 1}, HOUR)
    assert cap.label("second") == OTHER
    cap.update({"second": 1}, HOUR + 1)
    assert cap.label("second") == "second"
    assert cap.overflowed == 0


# Counters


def test_counters_within_the_cap_stay_as_they_are() -> None:
    counters = {"sessions": {"a": 3.0, "b": 4.0}}
    assert CounterCap(2).fold(counters, 0.0) == counters


def test_the_busiest_names_keep_their_counters_and_the_rest_is_their_sum() -> None:
    folded = CounterCap(1).fold(
        {"sessions": {"a": 3.0, "b": 40.0, "c": 5.0}, "killed": {"a": 0.0, "b": 1.0, "c": 2.0}}, 0.0
    )
    assert folded == {"sessions": {"b": 40.0, OTHER: 8.0}, "killed": {"b": 1.0, OTHER: 2.0}}


def test_the_sum_of_the_rest_grows_by_what_each_of_them_counts() -> None:
    cap = CounterCap(1)
    cap.fold({"sessions": {"a": 100.0, "b": 10.0, "c": 5.0}}, 0.0)
    assert cap.fold({"sessions": {"a": 101.0, "b": 12.0, "c": 6.0, "new": 3.0}}, 15.0) == {
        "sessions": {"a": 101.0, OTHER: 15.0 + 2 + 1 + 3}
    }


def test_the_sum_of_the_rest_never_falls() -> None:
    """Not when one of them is dropped, nor when its counters are reset, nor when it gets a place of its own."""
    cap = CounterCap(1)
    cap.fold({"sessions": {"a": 100.0, "b": 10.0, "c": 5.0}}, 0.0)
    assert cap.fold({"sessions": {"a": 100.0, "b": 10.0}}, 15.0)["sessions"] == {"a": 100.0, OTHER: 15.0}, "c dropped"
    assert cap.fold({"sessions": {"a": 100.0, "b": 2.0}}, 30.0)["sessions"] == {"a": 100.0, OTHER: 17.0}, "b reset"
    admitted = cap.fold({"sessions": {"b": 3.0}}, 31.0 + HOUR)
    assert admitted["sessions"] == {"b": 3.0, OTHER: 17.0}, "b admitted in the place of a"
