"""What the alerts tell a tired person to type really runs, as it stands there."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

import pytest

import servers
from pgleak import cli
from rules_support import alerts, promtool

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Connect
    from pgleak.demo.embedded import EmbeddedPostgres


def _said() -> str:
    """All descriptions, as they read when there is nothing to look up, each in a line."""
    texts = [alert.annotations["description"] for alert in alerts()]
    looked_up = re.compile(r"\{\{ range .+?\{\{ end \}\}", re.DOTALL)
    return "\n".join(re.sub(r"\{\{ .+? \}\}", "shop", looked_up.sub("", text)).replace("\n", " ") for text in texts)


def _found(begin: str) -> list[str]:
    """What begins so, up to the end: as much as somebody copies."""
    found = sorted(set(re.findall(rf"\b(?:{begin}).*$", _said(), re.MULTILINE)))
    assert found
    return found


@pytest.mark.parametrize("statement", _found("SELECT "))
def test_the_statements_run(postgres: EmbeddedPostgres, connect: Connect, statement: str) -> None:
    servers.query(connect(postgres), statement)


def test_no_statement_has_a_name_in_it_that_a_client_chose() -> None:
    assert [statement for statement in _found("SELECT ") if "shop" in statement] == []


def test_the_queries_are_valid(tmp_path: Path) -> None:
    queries = _found(r"topk\(|sort_desc\(|increase\(")
    entries = [{"record": f"alert:query:q{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "alerts", "rules": entries}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", path)


def test_the_commands_of_pgleak_exist(capsys: pytest.CaptureFixture[str]) -> None:
    commands = set(re.findall(r"\bpgleak [a-z]+(?: --[\w-]+(?: [\w./]+\b)?)+", _said()))
    assert commands
    for command in commands:
        name, *options = shlex.split(command)[1:]
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0
        said = capsys.readouterr().out
        assert all(option in said for option in options if option.startswith("-")), command
