"""Limits for a program that has no code of ours."""

from __future__ import annotations

import logging
import math
import os
import re
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine

from pgleak import variables
from pgleak.pool import api, reading
from pgleak.pool.limits import limits_from_environment
from pgleak.pool.marks import expected_hold
from pgleak.pool.snapshot import Expected, Limits
from pgleak.pool.suspects import judge
from pool_support import url

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.pool.statefile import StateFile


def test_each_limit_has_a_variable() -> None:
    environment = {
        "PGLEAK_DEAD_OWNER": "10",
        "PGLEAK_ALIVE_OWNER": " 45.5 ",
        "PGLEAK_ALIVE_FACTOR": "3",
        "PGLEAK_UNPROVEN_SITE": "120",
        "PGLEAK_SAMPLES": "100",
    }
    assert limits_from_environment(environment) == Limits(10.0, 45.5, 3.0, 120.0, 100)
    assert limits_from_environment({"PGLEAK_DEAD_OWNER": ""}) == Limits()


def test_the_table_in_the_docs_is_true() -> None:
    document = (Path(__file__).parents[2] / "docs" / "frameworks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(PGLEAK_\w+)` \| `(\w+)` \| (\S+) \|", document, re.MULTILINE)
    assert rows == [(f"PGLEAK_{field.name.upper()}", field.name, f"{field.default:g}") for field in fields(Limits)]


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf", "1e999", "5s", "\ud800"])
def test_what_makes_no_sense_is_said_once_and_not_quoted(value: str, caplog: pytest.LogCaptureFixture) -> None:
    environment = {"PGLEAK_DEAD_OWNER": value, "PGLEAK_SAMPLES": "2.5", "PGLEAK_UNPROVEN_SITE": "90"}
    assert limits_from_environment(environment) == Limits(unproven_site=90)
    assert caplog.messages == [
        "PGLEAK_DEAD_OWNER must be a number, 0 or more; 5 holds; PGLEAK_SAMPLES must be a whole number, 0 or more; 20 holds"
    ]


def test_a_number_of_any_length_is_a_mistake_like_another() -> None:
    assert limits_from_environment({"PGLEAK_SAMPLES": "9" * 400, "PGLEAK_DEAD_OWNER": "1e400"}) == Limits()


@pytest.mark.parametrize("value", [math.nan, -1.0, -math.inf, 10**400])
def test_what_is_no_limit_is_refused_where_it_is_given(value: float) -> None:
    for field in fields(Limits):
        with pytest.raises((ValueError, TypeError), match=field.name):
            Limits(**{field.name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_seconds"):
        expected_hold("report", max_seconds=value)


@pytest.mark.parametrize("value", ["30", None, []])
def test_what_is_no_number_is_refused_where_it_is_given(value: Any) -> None:
    for field in fields(Limits):
        with pytest.raises(TypeError, match=field.name):
            Limits(**{field.name: value})
    with pytest.raises(TypeError, match="max_seconds"):
        expected_hold("report", max_seconds=value)


@pytest.mark.parametrize("name", [b"report", None, 7])
def test_what_is_known_to_take_long_has_a_name(name: Any) -> None:
    with pytest.raises(TypeError, match="name"):
        expected_hold(name, max_seconds=900)


@pytest.mark.parametrize("most", [math.inf, sys.float_info.max])
def test_without_a_limit_a_process_is_read_like_another(
    postgres16: EmbeddedPostgres, write: Callable[..., StateFile], folder: Path, most: float
) -> None:
    """One number that is not finite would make the whole file unreadable."""
    engine = create_engine(url(postgres16))
    api.instrument(engine, limits=Limits(most, most, most, most))
    with expected_hold("for ever", max_seconds=most), engine.connect():
        mine = api.snapshot()
        write(mine)
        found = reading.read(folder)
    assert not found.skipped
    (reported,) = found.processes
    assert reported.snapshot.limits == Limits(math.inf, math.inf, math.inf, math.inf)
    assert reported.snapshot.pools[0].checkouts[0].expected == Expected("for ever", math.inf)
    assert judge(mine) == judge(reported.snapshot) == ()
    engine.dispose()


def test_code_goes_before_the_environment(postgres16: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGLEAK_DEAD_OWNER", "10")
    engine = create_engine(url(postgres16))
    api.instrument(engine)
    assert api.snapshot().limits == Limits(dead_owner=10)
    api.instrument(engine, limits=Limits(dead_owner=2))
    api.instrument()
    assert api.snapshot().limits == Limits(dead_owner=2)
    engine.dispose()


def test_a_misspelled_variable_is_said_once_and_those_of_the_exporter_are_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for variable in ("UNPROVEN_SIT", "POOL_DIR", "DSN", "LISTEN", "SAMPLES", "SERVICE_HOST", "PORT_10432_TCP_ADDR"):
        monkeypatch.setenv(f"PGLEAK_{variable}", "3")
    engine = create_engine("sqlite://")
    for _ in range(2):
        api.instrument(engine, limits=Limits())
        api.instrument()
    assert caplog.messages == [
        f"PGLEAK_POOL_DIR is not read; what pgleak reads in an application is {', '.join(variables.OF_APPLICATIONS)}",
        "PGLEAK_UNPROVEN_SIT is not read; did you mean PGLEAK_UNPROVEN_SITE?",
    ]
    engine.dispose()


def test_a_log_that_wants_a_connection_of_its_own_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes back to `instrument()`, and so may another thread's that the handler waits for."""
    monkeypatch.setenv("PGLEAK_ALIVE_OWNER", "many")
    monkeypatch.setenv("PGLEAK_POOL_DIR", "/run/pgleak")
    told: list[str] = []

    class Database(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())
            thread = threading.Thread(target=api.instrument, daemon=True)
            thread.start()
            thread.join(timeout=30)
            assert not thread.is_alive()
            api.instrument()

    handler = Database()
    logging.getLogger("pgleak.pool").addHandler(handler)
    try:
        api.instrument()
    finally:
        logging.getLogger("pgleak.pool").removeHandler(handler)
    assert [each.partition(" ")[0] for each in told] == ["PGLEAK_POOL_DIR", "PGLEAK_ALIVE_OWNER"]


def test_a_program_without_code_of_ours(postgres16: EmbeddedPostgres) -> None:
    program = (
        "import logging, sys, threading, sqlalchemy\n"
        "logging.basicConfig(format='%(message)s')\n"
        "held = sqlalchemy.create_engine(sys.argv[1]).connect()\n"
        "sys.stdin.read(1)\n"
    )
    address = url(postgres16, plugin="pgleak").render_as_string(hide_password=False)
    environment = {**os.environ, "PGLEAK_UNPROVEN_SITE": "0.1", "PGLEAK_ALIVE_OWNER": "many"}
    with subprocess.Popen(
        [sys.executable, "-c", program, address],
        env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "PGLEAK_ALIVE_OWNER must be a number, 0 or more; 30 holds\n"
            assert process.stderr.readline().startswith("connection held for ")
        finally:
            process.kill()
