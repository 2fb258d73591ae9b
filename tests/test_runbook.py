"""What the runbook tells a tired person to type really runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import servers
from pgleak import cli
from pgleak.demo.embedded import LOOPBACK, SUPERUSER, free_port
from rules_support import RUNBOOK, commands, promtool, questions

if TYPE_CHECKING:
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
        sooner = re.sub(r"interval '[^']+'", "interval '0 seconds'", statement)
        expected = {stuck.info.backend_pid}
        if "state <> 'active'" in statement:
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


APPLICATION = """
import logging, os, sys, threading
import sqlalchemy

logging.basicConfig(filename="application.log")
engines = [sqlalchemy.create_engine(os.environ["DATABASE_URL"]) for _ in range(12)]
for engine in engines:
    engine.connect().close()
held = []
thread = threading.Thread(target=lambda: held.append(engines[0].connect()))
thread.start()
sys.stdin.read()
"""


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False


def test_the_shell_finds_what_the_runbook_looks_for(postgres18: EmbeddedPostgres, tmp_path: Path) -> None:
    """Beside an application that forgets a connection and makes an engine over and over, and a pgleak that watches both."""
    port, reports = free_port(), tmp_path / "reports"
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "pgleak.yml").write_text(
        f"listen: {LOOPBACK}:{port}\npool_dir: {reports}\n"
        f"targets: [{{name: orders, dsn: 'postgresql://{SUPERUSER}@{LOOPBACK}:{postgres18.port}/postgres'}}]\n"
    )
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": programs, "PGLEAK_DIR": str(reports), "PGLEAK_DEAD_OWNER": "1", "PGLEAK_UNPROVEN_SITE": "1"}
    url = f"postgresql+psycopg2://{SUPERUSER}@{LOOPBACK}:{postgres18.port}/postgres?plugin=pgleak&pgleak_name=shop"

    def run(line: str) -> subprocess.CompletedProcess[str]:
        there = line.replace("127.0.0.1:10432", f"{LOOPBACK}:{port}")
        return subprocess.run(
            ["sh", "-ec", there], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    application = subprocess.Popen(
        [sys.executable, "application.py"],
        cwd=tmp_path, env={**environment, "DATABASE_URL": url}, stdin=subprocess.PIPE,
    )  # fmt: skip
    serving = subprocess.Popen(
        [sys.executable, "-m", "pgleak", "serve", "--config", tmp_path / "pgleak.yml"], env=environment
    )
    try:
        log = tmp_path / "application.log"
        wanted = set(re.findall(r"^grep '([^']+)' application.log", RUNBOOK.read_text(), re.MULTILINE))
        assert len(wanted) == 2
        servers.wait_until(
            lambda: log.exists() and all(each in log.read_text() for each in wanted), timeout=60, what="its log"
        )
        servers.wait_until(lambda: listens(port), timeout=60, what="pgleak")
        ran = 0
        for line in {line for block in commands("sh") for line in block.splitlines()}:
            if shutil.which(line.split()[0], path=programs):
                done = run(line)
                assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
                assert done.stdout
                ran += 1
        assert ran >= 5
        (who,) = set(re.findall(r"`(pgleak who --config [^`]+)`", RUNBOOK.read_text()))
        assert "application.py" in run(who).stdout
    finally:
        serving.terminate()
        application.communicate()
        serving.wait(20)
