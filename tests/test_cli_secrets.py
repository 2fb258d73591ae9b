"""A password may stand anywhere on the command line: no error repeats it; and no option is silently ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgleak.cli import main

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "S3CRET-Zq9x"
DSN = f"postgresql://u:{SECRET}@h/d"
DID_YOU_MEAN = "did you mean --dsn?"


@pytest.fixture(autouse=True)
def no_server_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGLEAK_DSN", "PGHOST", "PGHOSTADDR", "PGSERVICE", "PGPORT", "PGUSER", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """What is said about a wrong command line."""
    try:
        ended: object = main(arguments)
    except SystemExit as exit_:
        ended = exit_.code
    said = capsys.readouterr()
    assert ended == code, said
    assert "Traceback" not in said.err
    return said.out + said.err


@pytest.mark.parametrize(
    "arguments",
    [
        (DSN,),
        ("serve", DSN),
        ("serve", "--dns", DSN),
        ("serve", f"--dns={DSN}"),
        ("serve", "--listen", DSN),
        ("serve", "--listen", f"u:{SECRET}@h"),
        ("serve", "--config", DSN),
        ("serve", "--web-config", DSN),
        ("serve", "--pool-dir", DSN),
        ("serve", "--password-file", DSN),
        ("serve", "--log-level", DSN),
        ("serve", "--dsn", "host=h", f"password={SECRET}"),
        ("serve", "--dsn", "host=h", f"passwrod={SECRET}"),
        ("serve", "--dsn", "host=h", "--password-file", f"u:{SECRET}//x@h"),
        ("who", DSN),
        ("who", "--interval", DSN),
        ("who", "--pool-dir", DSN),
        ("check", DSN),
        ("grants", "--server-version", DSN),
        ("grants", "--role", DSN),
        ("demo", "--seconds", DSN),
    ],
)
def test_a_connection_string_in_the_wrong_place_is_not_repeated(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    said = refused(capsys, *arguments)
    assert SECRET not in said
    assert DID_YOU_MEAN in said


@pytest.mark.parametrize("name", [DSN, f"u:{SECRET}@h"])
def test_a_connection_string_as_the_name_of_a_server_is_not_repeated(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    said = refused(capsys, "serve", "--dsn", "host=h", "--server", name)
    assert SECRET not in said
    assert "--server: must be a name, not a connection string" in said


@pytest.mark.parametrize("given", [("--password", SECRET), (f"--password={SECRET}",), ("-W", SECRET)])
def test_a_password_is_not_repeated(capsys: pytest.CaptureFixture[str], given: tuple[str, ...]) -> None:
    said = refused(capsys, "serve", *given)
    assert SECRET not in said
    assert "--password-file" in said


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("--pasword", SECRET), "--pasword (not shown); a password belongs in"),
        ((f"--pasword={SECRET}",), "--pasword=(not shown); a password belongs in"),
        (("--paswrod", SECRET), "--paswrod (not shown)"),
        (("--pasword", f"--{SECRET}"), "--pasword (not shown)"),
        ((f"--password{SECRET}",), "--password(not shown)"),
        ((f"-W{SECRET}",), "-W(not shown)"),
        ((SECRET,), "arguments: (not shown)"),
        ((f"--print-exampel={SECRET}", SECRET), "--print-exampel=(not shown) (not shown)"),
        (("--password-fil", SECRET), "--password-fil (not shown)"),
    ],
)
def test_of_arguments_that_nobody_knows_only_the_options_names_are_repeated(
    capsys: pytest.CaptureFixture[str], given: tuple[str, ...], named: str
) -> None:
    said = refused(capsys, "serve", *given)
    assert SECRET not in said
    assert named in said


@pytest.mark.parametrize("given", ["postgresql://h/d", "host=h"])
def test_a_server_in_the_wrong_place_gets_the_advice_too(capsys: pytest.CaptureFixture[str], given: str) -> None:
    assert DID_YOU_MEAN in refused(capsys, "serve", given)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--dsn", ""), "empty"),
        (("--dsn", "", "--pool-dir", "/x"), "empty"),
        (("--dsn", "host=h", "--listen", ""), "--listen"),
        (("--config", ""), "must not be empty"),
        (("--dsn", "", "--config", "x.yml"), "--dsn goes with one server"),
        (("--pool-dir", "/x", "--server", "a"), "--server goes with a server"),
        (("--pool-dir", "/x", "--password-file", "/y"), "--password-file goes with a server"),
    ],
)
def test_an_empty_or_useless_option_is_an_error(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in refused(capsys, "serve", *arguments)


@pytest.mark.parametrize(("command", "code"), [("grants", 2), ("check", 1)])
def test_what_is_there_without_a_target_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, code: int
) -> None:
    config = tmp_path / "pgleak.yml"
    config.write_text("pool_dir: /nowhere\n")
    said = refused(capsys, command, "--config", str(config), code=code)
    assert ("no target in the settings" if command == "grants" else "does not exist; PGLEAK_DIR") in said


def test_it_is_said_that_a_port_alone_names_no_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    said = refused(capsys, "check", "--pool-dir", "/nowhere", code=1)
    assert "PGPORT without PGHOST names no server" in said


def test_a_remark_does_not_come_before_an_error_that_it_is_not_about(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "serve", "--listen", "nowhere")
    assert "--listen nowhere: must be host:port" in said
    assert "no server is named" not in said


@pytest.mark.parametrize(
    ("dsn", "warned"),
    [(f"host=127.0.0.1 port=1 password={SECRET}", True), ("host=127.0.0.1 port=1 user=u", False)],
)
def test_a_password_in_dsn_is_warned_of_and_not_repeated(
    capsys: pytest.CaptureFixture[str], dsn: str, warned: bool
) -> None:
    said = refused(capsys, "check", "--dsn", dsn, code=1)
    assert ("--dsn holds a password, and ps shows it" in said) == warned
    assert SECRET not in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PGLEAK_LISTN", "PGLEAK_LISTN is not read; did you mean PGLEAK_LISTEN?"),
        ("PGLEAK_XYZ", "PGLEAK_XYZ is not read; what this command reads is PGLEAK_DSN and PGLEAK_LISTEN"),
        ("PGLEAK_DIR", ""),
        ("PGLEAK_DEAD_OWNER", ""),
        ("PGLEAK_PORT_10432_TCP_ADDR", ""),  # Kubernetes sets these where a Service is called pgleak
        ("PGLEAK_SERVICE_HOST", ""),
    ],
)
def test_a_variable_that_nothing_reads_is_named_without_its_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setenv(name, SECRET)
    heard = refused(capsys, "check", "--dsn", "host=127.0.0.1 port=1", code=1)
    assert said in heard
    assert ("is not read" in heard) == bool(said)
    assert SECRET not in heard
