"""`pgleak who` on a real server with real processes: what a person sees who has an incident."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import servers
from holders.processes import APPLICATION, Fleet, url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Connect, NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres

NAME = "who-shop"
LINE = next(n for n, text in enumerate(APPLICATION.read_text().splitlines(), 1) if text.endswith("# TAKEN"))


@pytest.fixture(scope="module")
def shop(postgres16: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two connections that are held for too long, and a healthy application beside it."""
    fleet = Fleet(tmp_path_factory.mktemp("who") / "state", [])
    fleet.start(url(postgres16, f"{NAME}-healthy"), "in_use", "pooled")
    fleet.start(url(postgres16, NAME), "overdue", "overdue")
    servers.wait_until(lambda: "overdue" in who(postgres16, fleet, "--json"))
    yield fleet
    fleet.close()


def command(server: EmbeddedPostgres | None, fleet: Fleet | None, *options: str) -> list[str]:
    source = ["--dsn", server.dsn(), "--server", "db"] if server else []
    folder = ["--pool-dir", str(fleet.folder)] if fleet else []
    return [sys.executable, "-m", "pgleak", "who", *source, *folder, *options]


def who(server: EmbeddedPostgres | None, fleet: Fleet | None, *options: str, code: int = 0) -> str:
    done = subprocess.run(command(server, fleet, *options), capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (code, ""), done
    return done.stdout


def of(told: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (each for each in told["applications"] if each["application_name"] == name)
    return dict(found)


def test_the_culprit_is_on_top_with_line_owner_and_the_sql_that_ends_it(
    postgres16: EmbeddedPostgres, shop: Fleet
) -> None:
    text = who(postgres16, shop, "--once")
    lines = text.splitlines()
    first = next(line for line in lines if "connections" in line and "@db" in line)
    assert first == f"! {NAME}  (postgres@db)  2 connections, 2 suspect: 2 overdue"
    assert f"  {NAME}-healthy  (postgres@db)  2 connections: 1 in use; 1 pooled" in lines
    words = " ".join(text.replace("\n! ", " ").split())
    assert re.search(rf" 2x application\.py:{LINE} take < application\.py:\d+ <module>, {NAME} on db, since ", words)
    assert "by thread 'MainThread', now at application.py:" in words
    assert re.search(r"select pg_terminate_backend\(pid\) from unnest\(array\[\d+, \d+\]\) pid;", words)
    assert text.index(f"{NAME}-healthy") < text.index("! 2x")  # no application is pushed off the screen by a culprit


def test_each_suspect_has_a_row_with_where_its_owner_stands(postgres16: EmbeddedPostgres, shop: Fleet) -> None:
    lines = who(postgres16, shop, "--once").splitlines()
    pids = {str(each["pid"]) for each in of(json.loads(who(postgres16, shop, "--json")), NAME)["connections"]}
    titles = lines.index("  PID     STATE      AGE    UNUSED HOLDER     WHERE")
    rows = [number for number in range(titles + 1, len(lines)) if lines[number].startswith("! ")]
    assert {lines[number].split()[1] for number in rows} == pids
    for number in rows:
        assert re.fullmatch(rf"! \d+ +idle tx +\S+ +\S+ +overdue +application\.py:{LINE} take", lines[number])
        assert lines[number + 1].startswith("    by thread 'MainThread', now at application.py:")


def test_all_has_a_row_for_each_connection(postgres16: EmbeddedPostgres, shop: Fleet) -> None:
    lines = who(postgres16, shop, "--once", "--all").splitlines()
    row = next(line for line in lines if " overdue " in line and line.startswith("! "))
    assert re.fullmatch(rf"! \d+ +idle tx +\S+ +\S+ +overdue +application\.py:{LINE} take", row)
    assert f"    select pg_terminate_backend({row.split()[1]});" in lines


def test_it_ends_nothing_by_itself(postgres16: EmbeddedPostgres, shop: Fleet, connect: Connect) -> None:
    pids = "SELECT array_agg(pid ORDER BY pid) FROM pg_stat_activity WHERE application_name LIKE 'who-shop%%'"
    session = connect(postgres16)
    before = servers.query(session, pids)
    who(postgres16, shop, "--once", "--all")
    assert servers.query(session, pids) == before


@pytest.mark.parametrize("options", [("--once",), ("--once", "--all"), ("--diagnose",)], ids=" ".join)
def test_it_fits_80_columns_and_is_plain_text_where_no_terminal_is(
    postgres16: EmbeddedPostgres, shop: Fleet, options: tuple[str, ...]
) -> None:
    text = who(postgres16, shop, *options)
    assert max(map(len, text.splitlines())) <= 80
    assert all(character.isprintable() for character in text.replace("\n", ""))


def test_json_has_everything_of_a_connection(postgres16: EmbeddedPostgres, shop: Fleet) -> None:
    told = json.loads(who(postgres16, shop, "--json"))
    held = of(told, NAME)["connections"][0]
    assert (held["holder"], held["suspect"], held["state"]) == ("overdue", True, "idle in transaction")
    assert (held["site"], held["stack"][0]["line"]) == ("__main__:take", LINE)
    assert held["owner"] == {"kind": "thread", "name": "MainThread", "state": "alive"}
    assert held["standing"][0]["file"] == str(APPLICATION)
    assert held["end"] == f"select pg_terminate_backend({held['pid']});"
    assert held["process"] == shop.running[1].pid
    assert told["diagnoses"][0]["cause"] == "function_left_it_open"
    assert told["servers"][0]["up"] is True
    assert told["processes"]["reporting"] == 2


def test_no_query_text_is_ever_shown(postgres16: EmbeddedPostgres, shop: Fleet, connect: Connect) -> None:
    servers.query(connect(postgres16, application_name="secretive"), "SELECT 'hidden-from-everybody'")
    for options in (("--json",), ("--once", "--all"), ("--diagnose",)):
        assert "hidden-from" not in who(postgres16, shop, *options)


def test_the_diagnosis_says_in_words_what_to_change(postgres16: EmbeddedPostgres, shop: Fleet) -> None:
    text = " ".join(who(postgres16, shop, "--diagnose").split())
    assert f"{NAME} leaks on db: 2 of its 2 connections do not come back." in text
    assert "the function that took it has ended without closing it" in text
    assert f"line application.py:{LINE} in __main__:take" in text
    assert "change take it with `with engine.connect() as connection:`" in text


def test_what_the_garbage_collector_gave_back_is_told(postgres16: EmbeddedPostgres, tmp_path: Path) -> None:
    """It ends such a leak by luck: with the leak of the same line that goes on, or alone where none does by now."""
    fleet = Fleet(tmp_path / "state", [])
    try:
        fleet.start(url(postgres16, "who-lucky"), "in_use", "dropped")
        fleet.start(url(postgres16, "who-unlucky"), "overdue", "dropped")
        servers.wait_until(lambda: "overdue" in who(postgres16, fleet, "--json"))
        text = " ".join(who(postgres16, fleet, "--diagnose").split())
        told = json.loads(who(postgres16, fleet, "--json"))
        table = " ".join(who(postgres16, fleet, "--once").split())
    finally:
        fleet.close()
    lucky = (
        "who-lucky: the garbage collector had to give back 1 connection that nobody closed, taken in __main__:take (1)"
    )
    assert lucky in text
    assert lucky in table
    assert "besides the garbage collector has given back 1 connection taken there and never closed" in text
    assert "who-unlucky: the garbage" not in text
    assert of(told, "who-lucky")["returned_by_gc"] == {"__main__:take": 1}
    assert [each["returned_by_gc"] for each in told["diagnoses"]] == [1]


def test_work_that_takes_long_is_no_leak(postgres16: EmbeddedPostgres, tmp_path: Path) -> None:
    """The process says that it is overdue; the server, that it is used all the time."""
    fleet = Fleet(tmp_path / "state", [])
    try:
        fleet.start(url(postgres16, "who-busy"), "at_work")
        servers.wait_until(lambda: of(json.loads(who(None, fleet, "--json")), "who-busy")["suspects"] == 1)
        told = json.loads(who(postgres16, fleet, "--json"))
        text = " ".join(who(postgres16, fleet, "--diagnose").split())
        table = who(postgres16, fleet, "--once")
    finally:
        fleet.close()
    (held,) = of(told, "who-busy")["connections"]
    assert (held["holder"], held["in_use"], held["suspect"]) == ("overdue", True, False)
    assert told["diagnoses"] == []
    assert "who-busy leaks" not in text
    assert "who-busy holds" not in text
    assert "who-busy: 1 connection held for long is in use, for" in text
    assert "in __main__:work: no leak" in text
    assert "  who-busy  (postgres@db)  1 connection: 1 in use for long" in table.splitlines()


def test_what_another_thread_goes_on_with_is_no_leak_of_the_one_that_ended(
    postgres16: EmbeddedPostgres, tmp_path: Path
) -> None:
    """As a streamed answer does in a pool of threads, of which the first may have ended by now."""
    fleet = Fleet(tmp_path / "state", [])
    try:
        fleet.start(url(postgres16, "who-handed"), "owner_dead", "handed_on")
        servers.wait_until(lambda: of(json.loads(who(None, fleet, "--json")), "who-handed")["suspects"] == 2)
        servers.wait_until(lambda: of(json.loads(who(postgres16, fleet, "--json")), "who-handed")["suspects"] == 1)
        told = json.loads(who(postgres16, fleet, "--json"))
    finally:
        fleet.close()
    assert [held["holder"] for held in of(told, "who-handed")["connections"]] == ["owner_dead", "in_use"]
    assert [(each["cause"], each["connections"]) for each in told["diagnoses"]] == [("thread_ended", 1)]


def test_with_the_server_alone_it_tells_what_the_server_knows(
    postgres16: EmbeddedPostgres, connect: Connect, tmp_path: Path
) -> None:
    session = connect(postgres16, application_name="who-stuck")
    session.autocommit = False
    servers.query(session, "SELECT 1")
    settings = tmp_path / "pgleak.yml"
    settings.write_text(
        f"targets: [{{name: db, dsn: '{postgres16.dsn()}'}}]\nthresholds: {{stuck_in_transaction: 1s, passed_over: 1d}}\n"
    )

    def told() -> str:
        return who(None, None, "--config", str(settings), "--diagnose")

    servers.wait_until(lambda: "who-stuck may leak on db: 1 of its 1 connection" in told())
    text = " ".join(told().split())
    assert "cause its transaction stays open" in text
    assert "possible: seen from the server alone" in text
    assert "line not known" in text


def test_a_limit_of_the_role_is_counted_and_told(new_postgres: NewPostgres, connect: Connect, tmp_path: Path) -> None:
    """PostgreSQL refuses the role at its own limit, however much room the server has."""
    server = new_postgres(16)
    servers.run_sql(server, "CREATE ROLE limited LOGIN CONNECTION LIMIT 3")
    servers.run_sql(server, "CREATE DATABASE limited TEMPLATE template0 CONNECTION LIMIT 9")
    for _ in range(2):
        session = connect(server, user="limited", dbname="limited", application_name="who-limited")
        session.autocommit = False
        servers.query(session, "SELECT 1")
    settings = tmp_path / "pgleak.yml"
    settings.write_text(
        f"targets: [{{name: db, dsn: '{server.dsn()}'}}]\nthresholds: {{stuck_in_transaction: 1s, passed_over: 1d}}\n"
    )

    def told() -> str:
        return " ".join(who(None, None, "--config", str(settings), "--diagnose").split())

    servers.wait_until(lambda: "who-limited may leak on db: 2 of its 2" in told())
    assert "limit role limited: 2 of 3 connections taken" in told()
    assert "limit database limited: 2 of 9 connections taken" in told()
    limits = json.loads(who(None, None, "--config", str(settings), "--json"))["servers"][0]["limits"]
    assert {(each["kind"], each["name"], each["used"], each["limit"]) for each in limits} >= {
        ("role", "limited", 2, 3), ("database", "limited", 2, 9),
    }  # fmt: skip


def test_with_the_folder_alone_it_needs_no_server(shop: Fleet) -> None:
    told = json.loads(who(None, shop, "--json"))
    assert told["servers"] == []
    assert [held["holder"] for held in of(told, NAME)["connections"]] == ["overdue", "overdue"]
    assert {held["end"] for held in of(told, NAME)["connections"]} == {None}


def test_a_server_that_cannot_be_read_is_said_and_is_exit_code_1(tmp_path: Path) -> None:
    dsn = "host=127.0.0.1 port=1 user=nobody dbname=postgres"
    text = subprocess.run(
        [sys.executable, "-m", "pgleak", "who", "--once", "--dsn", dsn, "--server", "db"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert text.returncode == 1
    assert "cannot be read: unreachable" in text.stdout
    assert text.stderr == ""
