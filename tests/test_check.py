"""`pgleak check` and `pgleak grants`: what works, what to do about the rest, and that the SQL does it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import servers
import watching
from pgleak.demo.binaries import find_binaries
from pgleak.dsn import Dsn
from pgleak.finding import failed
from pgleak.postgres.check import REMEDIES, check
from pgleak.postgres.grants import grants
from pgleak.postgres.reasons import REASONS
from pgleak.settings import Canary, Target, Timeouts
from servers import query, run_sql, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Connect, NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.finding import Finding


def findings(target: Target, **options: object) -> dict[str, Finding]:
    return {finding.subject: finding for finding in check(target, watching.settings(target, **options))}


def run_grants(server: EmbeddedPostgres, version: int) -> None:
    """Run the printed SQL as psql would, but for its backslash commands, which set passwords."""
    run_sql(server, *statements_of(version))


def statements_of(version: int) -> list[str]:
    sql = "\n".join(line for line in grants(version).splitlines() if not line.startswith("\\"))
    return [statement.strip() for statement in re.sub("--.*", "", sql).split(";") if statement.strip()]


def test_everything_is_well_with_the_printed_grants(new_postgres: NewPostgres) -> None:
    server = new_postgres(18, reserved_connections=2)
    run_grants(server, 18)
    target = watching.target(server, user="pgleak", canary=Canary(Dsn.parse(server.dsn("pgleak_canary"))))
    found = findings(target)
    assert {finding.level for finding in found.values()} == {"ok", "info"}, found
    assert not failed(list(found.values()))
    assert "PostgreSQL 18." in found["version"].text
    assert found.keys() == {
        *(
            "reachable",
            "version",
            "role",
            "privileges",
            "reserved slots",
            "capacity",
            "applications",
            "reading",
            "canary",
        )
    }


def test_the_grants_are_enough_and_no_more(new_postgres: NewPostgres, connect: Connect) -> None:
    version = servers.system_version()
    server = new_postgres(version)
    run_grants(server, version)
    session = connect(server, user="pgleak")
    attributes = (
        "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = %s"
    )
    assert query(session, attributes, "pgleak") == [(False,) * 5]
    found = findings(watching.target(server, user="pgleak"))
    assert {finding.level for subject, finding in found.items() if subject != "reserved slots"} == {"ok", "info"}
    assert found["reserved slots"].level == ("info" if version < 16 else "warn")


@pytest.mark.parametrize(("version", "reserved"), [(13, False), (15, False), (16, True), (18, True)])
def test_grants_speak_of_reserved_slots_where_the_version_has_them(version: int, reserved: bool) -> None:
    text = grants(version)
    assert ("GRANT pg_use_reserved_connections" in text) == reserved
    assert ("ALTER SYSTEM SET reserved_connections" in text) == reserved
    assert "password" not in text.replace("\\password", "")


@pytest.mark.parametrize("version", [13, 15, 16, 18])
def test_piped_into_psql_they_make_roles_and_change_no_setting(version: int) -> None:
    assert {" ".join(statement.split()[:2]) for statement in statements_of(version)} <= {
        "CREATE ROLE", "GRANT CONNECT", "GRANT pg_read_all_stats", "GRANT pg_use_reserved_connections",
    }  # fmt: skip


def test_what_needs_a_terminal_comes_last() -> None:
    """Without one, psql reads a password from the lines that follow, which would swallow statements."""
    *others, first, second = grants(16).splitlines()
    assert first.startswith("\\password")
    assert second.startswith("\\password")
    assert not any(line.startswith("\\") for line in others)


def test_typed_into_psql_at_a_terminal_they_ask_for_both_passwords(new_postgres: NewPostgres, connect: Connect) -> None:
    version = servers.system_version()
    server = new_postgres(version)
    typed = (
        f"{sys.executable} -m pgleak grants --server-version {version} | {find_binaries(version)}/psql '{server.dsn()}'"
    )
    terminal = f"import os, pty; os._exit(os.waitstatus_to_exitcode(pty.spawn(['sh', '-c', {typed!r}])))"
    with subprocess.Popen([sys.executable, "-c", terminal], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as psql:
        assert psql.stdin is not None
        assert psql.stdout is not None
        seen, said = b"", 0
        while shown := os.read(psql.stdout.fileno(), 4096):
            seen += shown
            for _ in range(len(re.findall(b"Enter [^:]*: ", seen)) - said):
                psql.stdin.write(b"secret\n")
                psql.stdin.flush()
                said += 1
    assert (psql.returncode, said) == (0, 4), seen.decode()
    with_password = query(connect(server), "SELECT rolname FROM pg_authid WHERE rolpassword IS NOT NULL")
    assert {"pgleak", "pgleak_canary"} <= {name for (name,) in with_password}


def test_grants_quote_names() -> None:
    assert 'CREATE ROLE "we""ird; DROP" LOGIN' in grants(16, role='we"ird; DROP')


def test_a_managed_service_s_administrator_can_run_them(new_postgres: NewPostgres, connect: Connect) -> None:
    """Somebody who is no superuser, but may make roles and hand on the two that pgleak needs."""
    server = new_postgres(16)
    run_sql(
        server,
        "CREATE ROLE administrator LOGIN CREATEROLE CREATEDB",
        "GRANT pg_read_all_stats, pg_use_reserved_connections TO administrator WITH ADMIN OPTION",
    )
    session = connect(server, user="administrator")
    for statement in statements_of(16):
        query(session, statement)
    assert findings(watching.target(server, user="pgleak"))["privileges"].level == "ok"


def test_reserved_slots_that_wait_for_a_restart_are_told(new_postgres: NewPostgres) -> None:
    server = new_postgres(16)
    run_grants(server, 16)
    suggested = re.findall("^-- {5}(.*);$", grants(16), re.MULTILINE)
    assert len(suggested) == 2
    run_sql(server, *suggested)

    def remedy() -> str:
        return findings(watching.target(server, user="pgleak"))["reserved slots"].remedy

    wait_until(lambda: "pending_restart" in remedy(), what="the server to have read its settings again")
    assert "restart the server" in remedy()
    server.restart(settings={"reserved_connections": 2})  # it writes its settings anew
    assert findings(watching.target(server, user="pgleak"))["reserved slots"].level == "ok"


def test_an_old_version_is_refused() -> None:
    with pytest.raises(ValueError, match="12 is not supported"):
        grants(12)


def test_a_blind_role_a_superuser_and_a_privileged_canary_are_warnings(new_postgres: NewPostgres) -> None:
    server = new_postgres(16)
    run_sql(server, "CREATE ROLE blind LOGIN")
    blind = findings(watching.target(server, user="blind"))
    assert blind["privileges"].level == "warn"
    assert "pg_read_all_stats" in blind["privileges"].remedy
    assert blind["reserved slots"].level == "warn"
    assert "pg_use_reserved_connections" in blind["reserved slots"].remedy
    superuser = findings(watching.target(server, canary=Canary(Dsn.parse(server.dsn()))))
    assert superuser["role"].level == "warn"
    assert superuser["canary"].level == "warn"
    assert not failed([*blind.values(), *superuser.values()]), "a warning is no failure"


def test_a_nearly_full_server_is_a_warning(new_postgres: NewPostgres, connect: Connect) -> None:
    server = new_postgres(18, max_connections=10)
    for _ in range(5):
        connect(server)
    found = findings(watching.target(server))["capacity"]
    assert (found.level, "`pgleak who` says who holds them" in f"{found}") == ("warn", True)


def test_what_cannot_be_reached_fails_with_a_remedy(new_postgres: NewPostgres) -> None:
    server = new_postgres(18, max_connections=10)
    run_sql(server, "CREATE ROLE ordinary LOGIN")
    opened = [servers.open_connection(server, user="ordinary") for _ in range(7)]
    full = findings(watching.target(server, user="ordinary"))
    assert failed(list(full.values()))
    assert "slots_exhausted" in full["reachable"].text
    assert "pgleak grants" in full["reachable"].remedy
    for one in opened:
        one.close()
    missing = findings(Target("db", Dsn.parse(server.dsn(dbname="gone"))))
    assert "database_missing" in missing["reachable"].text
    server.freeze()
    started = time.monotonic()
    frozen = findings(watching.target(server), timeouts=Timeouts(scrape=1.0, connect=1.0))
    server.thaw()
    assert "timeout" in frozen["reachable"].text
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(("mode", "told"), [(0o644, True), (0o604, True), (0o640, False), (0o400, False)])
def test_a_password_that_everybody_can_read_is_worth_a_remark(tmp_path: Path, mode: int, told: bool) -> None:
    """And no more: Kubernetes mounts secrets like this. A group is somebody's choice, as in deploy/kubernetes."""
    path = tmp_path / "password"
    path.write_text("secret")
    path.chmod(mode)
    nowhere = Dsn.parse("host=127.0.0.1 port=1 user=pgleak dbname=postgres", path)
    found = check(Target("db", nowhere, Canary(nowhere)), watching.settings())
    remarks = [(finding.level, finding.text) for finding in found if finding.subject == "password file"]
    assert remarks == [("info", f"{path} can be read by everybody here (mode {mode:04o})")] * told


def test_every_reason_has_a_remedy() -> None:
    assert REMEDIES.keys() == REASONS.keys()
