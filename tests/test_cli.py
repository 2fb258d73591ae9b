"""The command as a user runs it: exit codes, clear errors, no traceback, no secret."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pgleak import cli
from servers import run_sql, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres

SECRET = "hunter2-Zq9x"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PYTHON"))}


def pgleak(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pgleak", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**ENVIRONMENT, **environment}, timeout=60, check=False
    )


class Serving:
    """A `pgleak serve` process; its output ends up in a file."""

    def __init__(self, log: Path, *arguments: str, **environment: str) -> None:
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pgleak", "serve", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**ENVIRONMENT, "PGLEAK_LISTEN": "127.0.0.1:0", **environment},
            )
        self.url = str(wait_until(self._url, timeout=30, what="the line with the address"))

    def _url(self) -> str:
        assert self.process.poll() is None, self.log.read_text()
        return next((word for word in self.log.read_text().split() if word.startswith("http")), "")

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url.rstrip("/") + path, timeout=20) as answer:
            body: str = answer.read().decode()
            return body


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    started: list[Serving] = []

    def start(*arguments: str, **environment: str) -> Serving:
        started.append(Serving(tmp_path / f"log{len(started)}", *arguments, **environment))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(10)


# serve


def test_serve_takes_a_dsn_and_ends_on_sigterm(postgres18: EmbeddedPostgres, serve: Any) -> None:
    running = serve("--dsn", postgres18.dsn(), "--server", "orders")
    assert 'pgleak_up{server="orders"} 1' in running.get("/metrics")
    assert "orders" in running.get("/")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(10) == 0
    log = running.log.read_text()
    assert "Traceback" not in log
    assert log.splitlines()[-1].endswith("INFO pgleak: ended by SIGTERM")


def test_serve_takes_pgleak_dsn(postgres18: EmbeddedPostgres, serve: Any) -> None:
    running = serve(PGLEAK_DSN=postgres18.dsn())
    assert f'pgleak_up{{server="127.0.0.1:{postgres18.port}"}} 1' in running.get("/metrics")


def test_serve_takes_libpq_s_own_environment(postgres18: EmbeddedPostgres, serve: Any) -> None:
    running = serve(PGHOST="127.0.0.1", PGPORT=str(postgres18.port), PGUSER="postgres", PGDATABASE="postgres")
    assert f'pgleak_up{{server="127.0.0.1:{postgres18.port}"}} 1' in running.get("/metrics")


def test_serve_takes_a_file_with_many_targets(
    postgres16: EmbeddedPostgres, postgres18: EmbeddedPostgres, serve: Any, tmp_path: Path
) -> None:
    config = tmp_path / "pgleak.yml"
    config.write_text(
        f"targets:\n  - name: one\n    dsn: {postgres16.dsn()}\n  - name: two\n    dsn: {postgres18.dsn()}\n"
    )
    metrics = serve("--config", str(config)).get("/metrics")
    assert 'pgleak_up{server="one"} 1' in metrics
    assert 'pgleak_up{server="two"} 1' in metrics


def test_serve_starts_while_the_server_is_down_and_finds_it_later(new_postgres: NewPostgres, serve: Any) -> None:
    server = new_postgres(18)
    server.stop()
    running = serve("--dsn", server.dsn(), "--server", "db")
    assert 'pgleak_up{server="db"} 0' in running.get("/metrics")
    server.start()
    wait_until(lambda: 'pgleak_up{server="db"} 1' in running.get("/metrics"), what="recovery")


def test_what_cannot_work_is_logged_at_once_and_not_at_the_first_scrape(serve: Any, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    running = serve("--dsn", "host=127.0.0.1 port=1", "--server", "db", "--pool-dir", str(missing))
    wait_until(lambda: "server db cannot be read (unreachable)" in running.log.read_text(), what="the refusal")
    said = running.log.read_text()
    assert f"WARNING pgleak: pools in {missing}: does not exist" in said
    assert f"start the application with PGLEAK_DIR={missing}" in said


def test_a_folder_that_applications_refuse_is_logged_once_at_the_start(serve: Any, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    running = serve("--pool-dir", str(tmp_path))
    wait_until(lambda: "pools in" in running.log.read_text(), what="the line about the folder")
    assert f"WARNING pgleak: pools in {tmp_path}: mode 0755 lets other users in; chmod 0700" in running.log.read_text()


def test_the_command_line_says_where_to_listen_then_the_environment_then_the_file(serve: Any, tmp_path: Path) -> None:
    config = tmp_path / "pgleak.yml"
    config.write_text("listen: 192.0.2.1:10432\ntargets: [{name: db, dsn: host=127.0.0.1 port=1}]\n")
    by_environment = serve("--config", str(config), PGLEAK_LISTEN="127.0.0.2:0")
    assert by_environment.url.startswith("http://127.0.0.2:")
    assert "healthy" in by_environment.get("/-/healthy")
    by_option = serve("--config", str(config), "--listen", "127.0.0.3:0", PGLEAK_LISTEN="127.0.0.2:1")
    assert by_option.url.startswith("http://127.0.0.3:")
    refused = pgleak("serve", "--config", str(config), PGLEAK_LISTEN="")
    assert refused.returncode == 1, "an empty variable is none, and the file names no address of this machine"
    assert "192.0.2.1:10432" in refused.stderr


def test_an_address_that_is_open_to_everybody_is_said(serve: Any, tmp_path: Path) -> None:
    web = tmp_path / "web.yml"
    web.write_text("http_server_config: {http2: false}\n")
    running = serve("--dsn", "host=127.0.0.1 port=1", "--listen", "0.0.0.0:0", "--web-config", str(web))
    assert "listens on every address of this machine, without a password" in running.log.read_text()


@pytest.mark.parametrize(
    ("given", "said"),
    [("10432", "PGLEAK_LISTEN=10432: must be host:port"), (f"postgresql://u:{SECRET}@h/d", "PGLEAK_LISTEN: must be")],
)
def test_a_wrong_address_in_the_environment_is_said_to_stand_there(given: str, said: str) -> None:
    done = pgleak("serve", "--dsn", "host=127.0.0.1", PGLEAK_LISTEN=given)
    assert done.returncode == 2
    assert said in done.stderr
    assert SECRET not in done.stderr


def test_a_port_in_use_is_a_clear_error(postgres18: EmbeddedPostgres) -> None:
    done = pgleak("serve", "--dsn", "host=127.0.0.1", "--listen", f"127.0.0.1:{postgres18.port}")
    assert done.returncode == 1
    assert str(postgres18.port) in done.stderr
    assert "Traceback" not in done.stderr


APPLICATION = """
import sys
from sqlalchemy import create_engine, text
engine = create_engine(sys.argv[1])
held = engine.connect()
held.execute(text("SELECT 1"))
print("holds", flush=True)
sys.stdin.read()
"""


def test_serve_takes_the_folder_of_an_application_that_was_not_changed(
    postgres18: EmbeddedPostgres, serve: Any, tmp_path: Path
) -> None:
    """The plugin in the URL and the folder in the environment are all that it takes."""
    folder = tmp_path / "pools"
    url = postgres18.dsn(plugin="pgleak", pgleak_name="shop").replace("postgresql:", "postgresql+psycopg2:")
    application = subprocess.Popen(
        [sys.executable, "-c", APPLICATION, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**ENVIRONMENT, "PGLEAK_DIR": str(folder)},
    )
    assert application.stdin
    assert application.stdout
    try:
        assert application.stdout.readline() == b"holds\n"
        running = serve("--pool-dir", str(folder))
        used = 'sqlalchemy_pool_connections{pool="shop",state="used"} 1'
        wait_until(lambda: used in running.get("/metrics"), what="the pool of the application")
        assert "pgleak_up{" not in running.get("/metrics"), "no server was named, so none is watched"
    finally:
        application.stdin.close()
        application.wait(20)
        application.stdout.close()
    wait_until(lambda: used not in running.get("/metrics"), what="the end of the application")


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--config", "/nonexistent.yml"], "/nonexistent.yml"),
        (["serve", "--dsn", "host=x", "--listen", "nowhere"], "--listen nowhere"),
        (["serve", "--bogus"], "usage: pgleak serve "),
        (["serve", "--listn=:1"], "did you mean --listen?"),
        (["check", "--pool_dir", "/x"], "did you mean --pool-dir?"),
        (["serve", "--config", "x.yml", "--dsn", "host=x"], "--dsn goes with one server"),
        (["serve", "--dsn", f"passwrod={SECRET}"], "password"),
        (["serve", "--dsn", f"postgresql://u:{SECRET}@h:notaport/db"], "port"),
        (["serve", "--dsn", "host=x", "--password-file", "/nonexistent/secret"], "/nonexistent/secret"),
        (["grants", "--server-version", "9"], "9 is not supported"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_without_a_traceback(arguments: list[str], said: str) -> None:
    done = pgleak(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr + done.stdout


def test_a_wrong_file_gets_every_problem_at_once(tmp_path: Path) -> None:
    config = tmp_path / "pgleak.yml"
    config.write_text("targts: []\ntimeouts: {scrape: -1}\ngroup_by: [colour]\n")
    done = pgleak("serve", "--config", str(config))
    assert done.returncode == 2
    for said in ("targts", "targets", "timeouts.scrape", "-1", "group_by", "colour", str(config)):
        assert said in done.stderr
    assert "Traceback" not in done.stderr


# check and grants


def test_check_prints_line_by_line_and_exits_by_the_outcome(postgres18: EmbeddedPostgres) -> None:
    good = pgleak("check", "--dsn", postgres18.dsn())
    assert good.returncode == 0, good.stdout + good.stderr
    assert "ok    reachable" in good.stdout
    bad = pgleak("check", "--dsn", postgres18.dsn(dbname="gone"))
    assert bad.returncode == 1
    assert "fail  reachable" in bad.stdout
    assert "name a database that exists" in bad.stdout


def test_the_lines_of_check_are_short_enough_to_read() -> None:
    done = pgleak("check", "--dsn", "host=127.0.0.1 port=1")
    lines = done.stdout.splitlines()
    assert lines[1].startswith("  fail  reachable")
    assert max(map(len, lines)) <= 118
    assert all(line.startswith((" " * 24, "  info  ")) for line in lines[2:]), done.stdout


@pytest.mark.parametrize("command", ["check", "grants"])
def test_with_no_server_named_it_is_said_which_is_taken_and_how_to_name_one(command: str) -> None:
    done = pgleak(command, PGPORT="1")
    assert "no server is named, so it is libpq's default: local socket, port 1, database " in done.stderr
    assert "--dsn, PGLEAK_DSN or PGHOST, or many with --config" in done.stderr
    assert "no server is named" not in pgleak(command, PGHOST="127.0.0.1", PGPORT="1").stderr


def test_grants_ask_the_server_for_its_version(system_postgres: EmbeddedPostgres) -> None:
    done = pgleak("grants", "--dsn", system_postgres.dsn())
    assert done.returncode == 0
    assert f"for PostgreSQL {system_postgres.version}." in done.stdout


def test_grants_without_a_server_say_how_to_go_on() -> None:
    done = pgleak("grants", PGPORT="1")
    assert done.returncode == 1
    error, remark = done.stderr.splitlines()
    assert "--server-version" in error
    assert "no server is named" in remark


# Secrets


def test_no_output_of_a_whole_run_holds_the_password(new_postgres: NewPostgres, serve: Any, tmp_path: Path) -> None:
    """A server that asks for a password is read, refused, lost and found again; nothing that anyone can see has it."""
    server = new_postgres(18, password_users=("guarded", "canary"))
    run_sql(
        server,
        f"CREATE ROLE guarded LOGIN PASSWORD '{SECRET}' IN ROLE pg_read_all_stats",
        f"CREATE ROLE canary LOGIN PASSWORD '{SECRET}'",
    )
    secret_file = tmp_path / "secret"
    secret_file.write_text(f"{SECRET}\n")
    config = tmp_path / "pgleak.yml"
    config.write_text(
        "targets:\n"
        f"  - name: right\n    dsn: {server.dsn('guarded', password=SECRET)}\n"
        f"    canary: {{user: canary, password_file: {secret_file}, interval: 1s}}\n"
        f"  - name: file\n    dsn: {server.dsn('guarded')}\n    password_file: {secret_file}\n"
        f"  - name: wrong\n    dsn: {server.dsn('guarded', password='not-' + SECRET)}\n"
        f"  - name: gone\n    dsn: {server.dsn('guarded', 'gone', password=SECRET)}\n"
    )
    running = serve("--config", str(config), "--log-level", "debug")
    seen = []

    def look() -> str:
        pages = [running.get(path) for path in ("/", "/metrics", "/sd", "/probe?target=wrong", "/connections")]
        seen.extend(pages)
        return str(pages[1])

    wait_until(lambda: 'pgleak_up{server="right"} 1' in look())
    assert 'pgleak_up{server="file"} 1' in look()
    assert re.search(r'pgleak_scrape_errors_total{server="wrong",reason="authentication"} [1-9]', look())
    server.stop()
    look()
    server.start()
    wait_until(lambda: 'pgleak_up{server="right"} 1' in look())
    ps = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(10)
    checked = pgleak("check", "--config", str(config))
    everything = "\n".join([*seen, running.log.read_text(), ps, checked.stdout, checked.stderr])
    assert "authentication" in everything, "the run did meet refusals"
    assert SECRET not in everything


def test_the_example_comes_with_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """So that it is at hand where only the package is, as in the container."""
    assert cli.main(["serve", "--print-example"]) == 0
    assert capsys.readouterr().out == (Path(__file__).parents[1] / "pgleak.example.yml").read_text()
