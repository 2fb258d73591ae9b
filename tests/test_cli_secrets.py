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
        ("serve", "--dsn", "host=h", "--server", f"u:{SECRET}@h"),
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
def test_settings_without_a_target_are_said_to_have_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, code: int
) -> None:
    config = tmp_path / "pgleak.yml"
    config.write_text("pool_dir: /x\n")
    assert "no target in the settings" in refused(capsys, command, "--config", str(config), code=code)


def test_it_is_said_that_a_port_alone_names_no_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    said = refused(capsys, "serve", "--pool-dir", "/x", "--listen", "nowhere")
    assert "PGPORT without PGHOST names no server" in said
