"""The example file is a right one, shows every key, and says what the code does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from pgleak.dsn import Dsn
from pgleak.settings import (
    CANARY_KEYS,
    DEFAULT_IGNORED,
    DEFAULT_REWRITES,
    TARGET_KEYS,
    TOP_KEYS,
    Canary,
    Caps,
    Settings,
    Thresholds,
    Timeouts,
    from_yaml,
)
from pgleak.settings_patterns import REWRITE_KEYS
from pgleak.settings_schema import format_duration

EXAMPLE = Path(__file__).parents[1] / "pgleak.example.yml"
OWN = "an example of your own"


@pytest.fixture
def example(tmp_path: Path) -> Settings:
    """The example as it stands, beside the files that it names."""
    (tmp_path / "secrets").mkdir()
    for name in ("secrets/orders", "secrets/canary", "web-config.yml"):
        (tmp_path / name).write_text("x")
    file = tmp_path / EXAMPLE.name
    file.write_text(EXAMPLE.read_text())
    return from_yaml(file, environ={})


def comment_above(key: str) -> str:
    """The comment lines right above the one place where a key stands."""
    lines = [line.strip() for line in EXAMPLE.read_text().splitlines()]
    place = next(number for number, line in enumerate(lines) if line.startswith(f"{key}:"))
    comment: list[str] = []
    while lines[place - 1].startswith("#"):
        place -= 1
        comment.insert(0, lines[place].removeprefix("# "))
    return " ".join(comment)


def test_it_loads_and_shows_every_key(example: Settings) -> None:
    data = yaml.safe_load(EXAMPLE.read_text())
    canaries = [target["canary"] for target in data["targets"]]
    assert set(data) == set(TOP_KEYS)
    assert {key for target in data["targets"] for key in target} == set(TARGET_KEYS)
    assert {key for canary in canaries for key in canary} == set(CANARY_KEYS)
    assert {key for each in data["rewrite_application_names"][1:] for key in each} == set(REWRITE_KEYS)
    for key, kind in (("caps", Caps), ("timeouts", Timeouts), ("thresholds", Thresholds)):
        assert list(data[key]) == [each.name for each in dataclasses.fields(kind)]
    assert [target.dsn.address for target in example.targets] == ["db1.example.com:5432/postgres", "service=billing"]


def test_its_values_are_the_defaults(example: Settings) -> None:
    """Where it claims so: all but the targets, the web config file, the pool folder, and what is called an example of your own."""
    defaults = Settings(targets=example.targets)
    own = {"targets", "web_config_file", "pool_dir", "application_names", "ignored_applications", "ignored_users"}
    own.add("reporting_applications")
    for each in dataclasses.fields(Settings):
        if each.name not in own:
            assert getattr(example, each.name) == getattr(defaults, each.name)
    assert example.application_names[:-1] == DEFAULT_REWRITES
    assert example.ignored_applications[:-1] == DEFAULT_IGNORED
    assert len(example.ignored_users) == len(example.reporting_applications) == 1
    assert EXAMPLE.read_text().count(OWN) == 4
    assert {target.canary.interval for target in example.targets if target.canary} == {Canary(Dsn({})).interval}


def test_its_comments_have_the_bounds_of_the_code() -> None:
    for kind in (Timeouts, Thresholds, Canary):
        for each in dataclasses.fields(kind):
            if not each.metadata:
                continue
            comment = comment_above("thresholds" if kind is Thresholds else each.name)
            bounds = f"{format_duration(each.metadata['low'])} to {format_duration(each.metadata['high'])}"
            assert bounds in comment, each.name
    for each in dataclasses.fields(Caps):
        assert f"From {each.metadata['low']} to {each.metadata['high']}." in comment_above("caps")
