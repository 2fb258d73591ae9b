"""What the runbook tells a tired person to type really runs."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest

import servers
from pgleak import cli
from rules_support import commands, promtool, questions

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Connect
    from pgleak.demo.embedded import EmbeddedPostgres


@pytest.mark.parametrize("statement", commands("sql"))
def test_the_statements_run(postgres: EmbeddedPostgres, connect: Connect, statement: str) -> None:
    servers.query(connect(postgres, application_name="somebody"), statement)


def test_what_ends_connections_ends_those_that_are_meant(postgres18: EmbeddedPostgres, connect: Connect) -> None:
    watcher = connect(postgres18, application_name="watcher")
    ending = [statement for statement in commands("sql") if "pg_terminate_backend" in statement]
    assert len(ending) == 2
    for statement in ending:
        other, idle, stuck = (connect(postgres18, application_name=name) for name in ("other", "shop", "shop"))
        servers.query(other, "BEGIN")
        servers.query(stuck, "BEGIN")
        assert servers.query(watcher, statement) == []
        sooner = statement.replace("interval '1 hour'", "interval '0 seconds'")
        expected = {stuck.info.backend_pid}
        if "in transaction" not in statement:
            expected |= {idle.info.backend_pid}
        assert {pid for pid, _ in servers.query(watcher, sooner)} == expected


def test_the_queries_are_valid(tmp_path: Path) -> None:
    queries = questions()
    entries = [{"record": f"runbook:query:q{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "runbook.yml"
    path.write_text(json.dumps({"groups": [{"name": "runbook", "rules": entries}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", path)


def test_the_commands_of_pgleak_exist(capsys: pytest.CaptureFixture[str]) -> None:
    found = {line for block in commands("sh") for line in block.splitlines() if line.startswith("pgleak ")}
    assert found
    for command in found:
        name, *options = shlex.split(command)[1:]
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0
        said = capsys.readouterr().out
        assert all(option in said for option in options if option.startswith("-"))
