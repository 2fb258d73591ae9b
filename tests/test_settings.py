"""A wrong file gets every problem at once, with its place; a right one means what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgleak.settings import (
    DEFAULT_IGNORED,
    DEFAULT_REWRITES,
    Caps,
    Listen,
    Settings,
    SettingsError,
    Thresholds,
    Timeouts,
    from_dict,
    from_yaml,
    single_target,
)
from pgleak.settings_schema import format_duration, parse_duration

ONE: dict[str, Any] = {"targets": [{"name": "a", "dsn": "host=db1 user=u dbname=x"}]}


def read(**changes: object) -> Settings:
    return from_dict(ONE | changes, environ={})


def lines(data: object, base: Path = Path()) -> list[str]:
    """The problems of a wrong file, as a user sees them."""
    with pytest.raises(SettingsError) as caught:
        from_dict(data, base, "pgleak.yml", environ={})
    first, *rest = str(caught.value).split("\n  ")
    count = len(caught.value.problems)
    assert first == f"pgleak.yml: {count} problem{'s' * (count != 1)}"
    return rest


def test_a_name_and_a_place_are_enough() -> None:
    settings = read()
    (target,) = settings.targets
    assert (target.name, target.dsn.address, target.canary) == ("a", "db1:5432/x", None)
    assert settings == Settings(targets=settings.targets)
    assert (settings.listen, settings.group_by) == (
        Listen("127.0.0.1", 10432),
        ("datname", "usename", "application_name"),
    )
    assert settings.timeouts == Timeouts(8.0, 0.5, 5.0, 1.0, 30.0)
    assert settings.thresholds == Thresholds(3600.0, 300.0, 3600.0, 900.0)
    assert settings.caps == Caps(100, 100)


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    """Each with its key path, what was found and what is allowed."""
    data = {
        "listen": 10432,
        "grop_by": ["datname"],
        "timeouts": {"scrape": "soon", "lock": 0},
        "caps": {"client_addr": 0, "application_name": True},
        "ignored_applications": ["*"],
        "targets": [
            {"name": "a", "dsn": "host=db1 port=x"},
            {"name": "a", "service": "s", "canary": {"user": "u", "interval": "2 days"}},
            {"name": "b", "dsn": "host=db1", "password_file": "none"},
        ],
    }
    assert lines(data, tmp_path) == [
        "grop_by: unknown key; did you mean group_by?; got a list",
        (
            "targets[0].dsn: the port is not a number from 1 to 65535; in a user name or password write % as %25, "
            "@ as %40, / as %2F, : as %3A, ? as %3F"
        ),
        (
            "targets[1].canary.interval: must be 1s to 10m: a number of seconds, or text like 500ms, 30s, 5m, 1h, 1d; "
            "got '2 days'"
        ),
        f"targets[2].password_file: password file {tmp_path}/none cannot be read: No such file or directory",
        "targets[1].name: the name of targets[0] again; each target needs its own; got 'a'",
        "listen: must be host:port, :port or [::1]:port, with a port from 0 (a free one) to 65535; got 10432",
        "ignored_applications[0]: is not a regular expression: nothing to repeat at position 0; got '*'",
        "caps.application_name: must be a whole number from 1 to 10000; got true",
        "caps.client_addr: must be a whole number from 1 to 10000; got 0",
        "timeouts.scrape: must be 100ms to 10m: a number of seconds, or text like 500ms, 30s, 5m, 1h, 1d; got 'soon'",
        "timeouts.lock: must be 10ms to 1m: a number of seconds, or text like 500ms, 30s, 5m, 1h, 1d; got 0",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": []}, "targets: must be a list of at least one target, each with a name; got an empty list"),
        ({"targets": None}, "targets: must be a list of at least one target, each with a name; got nothing"),
        ({"targets": {"name": "a"}}, "targets: must be a list; got a mapping"),
        ({"group_by": "datname"}, "group_by: must be a list; got 'datname'"),
        ({"targets": [{"dsn": "host=a"}]}, "targets[0].name: is missing: it is the label `server` of every"),
        (
            {"targets": [{"name": None}]},
            "targets[0].name: must not be empty: give a value, or remove the key; got nothing",
        ),
        ({"targets": [{"name": 5}]}, "targets[0].name: must be text: put it in quotes; got 5"),
        ({"targets": [{"name": "a\nb"}]}, "targets[0].name: must be text on one line, without control characters; got"),
        ({"targets": [{"name": "a" * 101}]}, "targets[0].name: must be 1 to 100 printable characters; got 'aaaa"),
        ({"targets": [{"name": "a", "dsn": None}]}, "targets[0].dsn: must not be empty: give a value, or remove"),
        ({"targets": [{"name": "a", "dsn": ["host=a"]}]}, "targets[0].dsn: must be text: put it in quotes"),
        ({"targets": [{"name": "a", "dsn": "host=a", "service": "b"}]}, "targets[0].service: cannot stand beside dsn"),
        (
            {"targets": [{"name": "a", "dsn": "host=a password=${PW}"}]},
            "targets[0].dsn: variables like ${NAME} are not",
        ),
        (
            {"targets": [{"name": "a"}, {"name": "b", "dsn": "host=a"}]},
            "targets[0].dsn: is missing: give dsn or service",
        ),
        (
            {"targets": [{"name": "a", "canary": None}]},
            "targets[0].canary: must be a mapping (key: value) with keys out",
        ),
        (
            {"targets": [{"name": "a", "canary": {}}]},
            "targets[0].canary.dsn: give either dsn, or user for the target's",
        ),
        (
            {"targets": [{"name": "a", "canary": {"dsn": "host=a", "user": "b"}}]},
            "targets[0].canary.dsn: give either dsn, or user",
        ),
        (
            {"targets": [{"name": "a", "canary": {"dsn": "hots=a"}}]},
            "targets[0].canary.dsn: an option that libpq does not know; did you mean host?",
        ),
        ({"listen": "10432"}, "listen: must be host:port, :port or [::1]:port"),
        ({"listen": "http://a:1"}, "listen: must be host:port"),
        ({"listen": "::1:80"}, "listen: must be host:port"),
        ({"listen": "a:65536"}, "listen: must be host:port"),
        ({"web_config_file": "none.yml"}, "web_config_file: none.yml is missing or cannot be read"),
        ({"group_by": []}, "group_by: must name at least one of datname, usename, application_name, client_addr"),
        ({"group_by": "datname"}, "group_by: must be a list"),
        (
            {"group_by": ["state"]},
            "group_by[0]: must be one of datname, usename, application_name, client_addr, each at",
        ),
        ({"group_by": ["datname", "datname"]}, "group_by[1]: must be one of"),
        ({"group_by": [["datname"]]}, "group_by[0]: must be one of"),
        ({"caps": {"client_addr": 1.5}}, "caps.client_addr: must be a whole number from 1 to 10000; got 1.5"),
        (
            {"caps": 3},
            "caps: must be a mapping (key: value) with keys out of datname, usename, application_name, client_addr; got 3",
        ),
        ({"caps": ["client_addr"]}, "caps: must be a mapping (key: value) with keys out of datname, usename, applica"),
        (
            {"timeouts": {"scrape": "1s", "scrape_offset": "1s"}},
            "timeouts.scrape: must be longer than scrape_offset; got 1s, and scrape_offset 1s",
        ),
        ({"timeouts": {"connect": float("nan")}}, "timeouts.connect: must be 100ms to 2m: "),
        ({"timeouts": {"connect": float("inf")}}, "timeouts.connect: must be 100ms to 2m: "),
        ({"timeouts": {"connect": -1}}, "timeouts.connect: must be 100ms to 2m: "),
        ({"thresholds": {"passed_over": "999ms"}}, "thresholds.passed_over: must be 1s to 30d: "),
        ({"thresholds": {"never_used": 1}}, "thresholds.never_used: unknown key; did you mean never_reused?"),
        ({"ignored_users": ["a", "b(c"]}, "ignored_users[1]: is not a regular expression: missing ), unterminated"),
        ({"ignored_users": [7]}, "ignored_users[0]: must be a regular expression, as text in quotes; got 7"),
        (
            {"rewrite_application_names": ["x"]},
            "rewrite_application_names[0]: must be a mapping (key: value) with keys",
        ),
        (
            {"rewrite_application_names": [{"pattern": "(a", "replacement": ""}]},
            (
                "rewrite_application_names[0].pattern: is not a regular expression: missing ), unterminated subpattern at "
                "position 0; got '(a'"
            ),
        ),
        (
            {"rewrite_application_names": [{"pattern": "a", "replacement": "\\2"}]},
            "rewrite_application_names[0].replacement: does not fit the pattern: invalid group reference 2 at position 1",
        ),
        (
            {"rewrite_application_names": [{"pattern": "a", "replacement": "\\g<x>"}]},
            "rewrite_application_names[0].replacement: does not fit the pattern: unknown group name 'x'",
        ),
        ({"rewrite_application_names": [{"pattern": "a"}]}, "rewrite_application_names[0].replacement: must be text"),
        (
            {"rewrite_application_names": [{"replacement": ""}]},
            "rewrite_application_names[0].pattern: must be a regular",
        ),
        ({"dsn": "host=a"}, "dsn: unknown key; it belongs under targets"),
        ({"password": "x"}, "password: unknown key; did you mean password_file under targets?"),
        ({"password_file": "x"}, "password_file: unknown key; it belongs under targets"),
        ({"scrape": 1}, "scrape: unknown key; it belongs under timeouts"),
        ({"targets": [{"name": "a", "user": "b"}]}, "targets[0].user: unknown key; the keys here are name, dsn, "),
        (
            {"targets": [{"name": "a", "listen": "h:1"}]},
            "targets[0].listen: unknown key; it belongs at the top of the file",
        ),
        (
            {"targets": [{"name": "a", "password": "x"}]},
            "targets[0].password: unknown key; did you mean password_file?",
        ),
        ({"zzz": 1}, "zzz: unknown key; the keys here are targets, listen, "),
        ({7: 1}, "7: unknown key; the keys here are"),
    ],
)
def test_a_mistake_is_explained_where_it_is(changes: dict[Any, object], said: str) -> None:
    (line,) = (each for each in lines(ONE | changes) if each.startswith(said))
    assert "\n" not in line


@pytest.mark.parametrize("data", [[], "x", 5])
def test_a_file_that_is_no_mapping_is_explained(data: object) -> None:
    assert lines(data)[0].startswith("must be a mapping (key: value) with keys out of targets, listen, ")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(5, 5), (0.5, 0.5), ("500ms", 0.5), ("30s", 30), ("5m", 300), ("1h", 3600), ("1d", 86400), ("1h30m", 5400)]
    + [("1.5h", 5400), (" 30s ", 30), ("30", 30), ("0.5", 0.5)]
    + [(bad, None) for bad in ("", "s", "5 s", "5w", "-5s", "1e3", "5S", "٣s", "1h x", None, True, float("nan"), [1])],
)
def test_a_duration_is_a_number_or_text_with_units(value: object, expected: float | None) -> None:
    assert parse_duration(value) == expected


@given(st.one_of(st.integers(0, 10**7).map(float), st.integers(1, 999).map(lambda ms: ms / 1000)))
def test_a_shown_duration_can_be_written_down(value: float) -> None:
    assert parse_duration(format_duration(value)) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:10432", "127.0.0.1", 10432),
        (":80", "", 80),
        ("[::1]:0", "::1", 0),
        ("my-host.local:1", "my-host.local", 1),
    ],
)
def test_listen_takes_hosts_and_addresses(text: str, host: str, port: int) -> None:
    assert read(listen=text).listen == Listen.parse(text) == Listen(host, port)
    assert str(Listen(host, port)) == text


def test_labels_come_in_the_catalogues_order() -> None:
    assert read(group_by=["client_addr", "datname"]).group_by == ("datname", "client_addr")


def test_own_patterns_replace_the_built_in_ones_and_defaults_brings_them_back() -> None:
    own = {"pattern": "^a-(.*)", "replacement": r"\1"}
    assert [each.pattern.pattern for each in read(rewrite_application_names=[own]).application_names] == ["^a-(.*)"]
    both = read(rewrite_application_names=[own, "defaults"], ignored_applications=["defaults", "my-.*"])
    assert both.application_names[1:] == DEFAULT_REWRITES
    assert both.ignored_applications[:-1] == DEFAULT_IGNORED
    assert both.ignored_applications[-1].fullmatch("MY-tool")
    none = read(rewrite_application_names=[], ignored_applications=[])
    assert (none.application_names, none.ignored_applications) == ((), ())
    commented_out = read(rewrite_application_names=None, ignored_applications=None, ignored_users=None)
    assert commented_out == read()
    assert read(ignored_users=["defaults"]).ignored_users[0].fullmatch("defaults")


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "web.yml").touch()
    (tmp_path / "password").write_text("secret\n")
    file = tmp_path / "pgleak.yml"
    file.write_text("web_config_file: web.yml\ntargets: [{name: a, service: s, password_file: password}]\n")
    settings = from_yaml(file)
    assert settings.web_config_file == tmp_path / "web.yml"
    assert settings.targets[0].dsn.parameters() == {"service": "s", "password": "secret"}


def test_a_canary_is_another_role_or_another_place(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("theirs")
    dsn = "postgresql://watcher:ours@db1:6543/x?sslmode=require"
    targets = [
        {"name": "a", "dsn": dsn, "canary": {"user": "app", "password_file": "password", "interval": "5m"}},
        {"name": "b", "dsn": dsn, "canary": {"user": "app"}},
        {"name": "c", "dsn": dsn, "canary": {"dsn": "host=db2 user=app", "password_file": "password"}},
    ]
    canaries = [target.canary for target in from_dict({"targets": targets}, tmp_path, environ={}).targets]
    place = {"host": "db1", "port": "6543", "dbname": "x", "sslmode": "require", "user": "app"}
    assert [canary and (canary.dsn.parameters(), canary.interval) for canary in canaries] == [
        (place | {"password": "theirs"}, 300.0),
        (place | {"password": ""}, 60.0),
        ({"host": "db2", "user": "app", "password": "theirs"}, 60.0),
    ]


def test_a_single_target_may_leave_everything_to_libpq() -> None:
    environ = {"PGHOST": "db1", "PGDATABASE": "x"}
    (target,) = from_dict({"targets": [{"name": "a"}]}, environ=environ).targets
    assert (target.dsn.address, target.dsn.parameters()) == ("db1:5432/x", {})


def test_one_server_comes_from_the_command_line_or_the_environment(tmp_path: Path) -> None:
    environ = {"PGLEAK_DSN": "postgresql://u:secret@db2:6543/x", "PGHOST": "db3"}
    for dsn, env, name in (
        ("host=db1", environ, "db1:5432"),
        (None, environ, "db2:6543"),
        (None, {"PGHOST": "db3", "PGLEAK_DSN": ""}, "db3:5432"),
        (None, {}, "localhost:5432"),
        ("service=orders", {}, "orders"),
    ):
        (target,) = single_target(dsn, environ=env).targets
        assert target.name == name
    assert single_target(name="orders", environ=environ).targets[0].name == "orders"
    (tmp_path / "password").write_text("secret")
    (target,) = single_target("host=db1", password_file=tmp_path / "password", environ={}).targets
    assert target.dsn.parameters() == {"host": "db1", "password": "secret"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dsn": ""}, "--dsn: empty; to use libpq's own environment"),
        ({"dsn": "hots=M4RK"}, "--dsn: an option that libpq does not know; did you mean host?"),
        ({"environ": {"PGLEAK_DSN": "postgresql://u:M4RK/x@db1"}}, "PGLEAK_DSN: an @ stands where none may"),
        ({"environ": {"PGPORT": "M4RK"}}, "environment: in libpq's environment"),
        ({"dsn": "host=a", "name": "postgresql://u:M4RK@db1"}, "--server: must be a name, not a connection string"),
        ({"dsn": "host=a", "password_file": Path("none")}, "--password-file: password file none cannot be read"),
    ],
)
def test_a_mistake_on_the_command_line_names_its_source(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        single_target(**{"environ": {}, **options})
    assert str(caught.value).startswith(f"command line: 1 problem\n  {said}")
    assert "M4RK" not in str(caught.value)


def test_syntax_errors_and_repeated_keys_have_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "pgleak.yml"
    file.write_text("targets:\n  - name: a\n    dsn: @M4RK\n")
    with pytest.raises(SettingsError) as caught:
        from_yaml(file)
    problem = "found character '@' that cannot start any token; put the value in quotes"
    assert str(caught.value) == f"{file}: 1 problem\n  {file}:3:10: {problem}"
    file.write_text("listen: ':1'\ntargets:\n  - name: a\n    name: b\nlisten: x\n")
    with pytest.raises(SettingsError) as caught:
        from_yaml(file)
    assert [str(problem).partition(";")[0] for problem in caught.value.problems] == [
        f"{file}:4:5: the key targets[0].name stands twice, first on line 3",
        f"{file}:5:1: the key listen stands twice, first on line 1",
        "listen: must be host:port, :port or [::1]:port, with a port from 0 (a free one) to 65535",
    ]
