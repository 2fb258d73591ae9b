"""Limits for a program that has no code of ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine

from pgleak.pool import api
from pgleak.pool.limits import limits_from_environment
from pgleak.pool.snapshot import Limits
from pool_support import url

if TYPE_CHECKING:
    from pgleak.demo.embedded import EmbeddedPostgres


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


def test_code_goes_before_the_environment(postgres16: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGLEAK_DEAD_OWNER", "10")
    engine = create_engine(url(postgres16))
    api.instrument(engine)
    assert api.snapshot().limits == Limits(dead_owner=10)
    api.instrument(engine, limits=Limits(dead_owner=2))
    api.instrument()
    assert api.snapshot().limits == Limits(dead_owner=2)
    engine.dispose()


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
