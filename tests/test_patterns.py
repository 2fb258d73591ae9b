"""A pattern that would stall the exporter on a name that a client sends is refused when the settings are read."""

from __future__ import annotations

import re
import time

import pytest

from pgleak.application_names import DEFAULT_IGNORED, DEFAULT_REWRITES
from pgleak.patterns import slow
from pgleak.settings import SettingsError, from_dict

ONE = {"targets": [{"name": "a", "dsn": "host=db1"}]}
STALLING = [r"(\w+)+$", r"^(a|a)*b$", r"([a-z]+-?)+x", r"(.*)*=", r"(q|qq)+$", r"^(\d+|\w+ ?)*:$"]
SOUND = [r"-\d+$", r"^(importer)-eu-\d+$", r"(?i)nightly-report.*", r"([\w-]+)\.(\w+)\.prod", r".*-.*-.*"]


def compiled(patterns: list[str]) -> list[tuple[str, re.Pattern[str]]]:
    return [("search", re.compile(pattern)) for pattern in patterns]


@pytest.mark.parametrize("pattern", STALLING)
def test_a_pattern_that_stalls_is_found_in_a_few_seconds(pattern: str) -> None:
    begun = time.process_time()
    assert slow(compiled([pattern])) == [0]
    assert time.process_time() - begun < 1, "it is another process that tries"


def test_sound_patterns_pass_and_stalling_ones_among_them_are_told_apart() -> None:
    assert slow(compiled(SOUND)) == []
    assert slow(compiled([SOUND[0], STALLING[0], SOUND[1], STALLING[1]])) == [1, 3]


def test_our_own_patterns_pass() -> None:
    ours = [("search", each.pattern) for each in DEFAULT_REWRITES] + [("fullmatch", each) for each in DEFAULT_IGNORED]
    assert slow(ours) == []


def test_each_is_reported_where_it_stands() -> None:
    data = {
        **ONE,
        "rewrite_application_names": [{"pattern": STALLING[0], "replacement": ""}],
        "ignored_users": ["dba_.*", STALLING[1]],
        "caps": {"datname": 0},
    }
    with pytest.raises(SettingsError) as refused:
        from_dict(data, environ={})
    text = str(refused.value)
    assert "rewrite_application_names[0].pattern: takes far too long on some text of 63 characters" in text
    assert "ignored_users[1]: takes far too long" in text
    assert "got '^(a|a)*b$'" in text
    assert "caps.datname" in text
