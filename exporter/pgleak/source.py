"""Which servers a command is about: the options that name them, and the settings that these and the environment give."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from pgleak import commandline, variables
from pgleak.commandline import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from pgleak.settings import Settings

SERVER_HALF = ("psycopg2", "yaml", "bcrypt")
_NAMES_A_SERVER = (variables.DSN, "PGHOST", "PGHOSTADDR", "PGSERVICE")
_NAMES_NONE = ("PGPORT", "PGUSER", "PGDATABASE")
_READ = f"what this command reads is {' and '.join(variables.OF_COMMANDS)}"
_ADDRESS_LIKE = re.compile(r"[\w.:-]{1,60}")  # nothing else is repeated: it may be a connection string
_HOW_TO_NAME = "Name one with --dsn, PGLEAK_DSN or PGHOST"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options that name servers."""
    parser.add_argument("--config", metavar="FILE", type=commandline.path, help="settings file (YAML); excludes --dsn")
    parser.add_argument(
        "--dsn", help="one server: libpq URI or key=value string (default: PGLEAK_DSN, then libpq's own)"
    )
    parser.add_argument(
        "--password-file", metavar="FILE", type=commandline.path, help="password of --dsn; read at each login"
    )
    parser.add_argument("--server", metavar="NAME", help="value of the label `server` (default: host:port)")


def add_pool_dir(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add the option that names the folder of an application's processes."""
    parser.add_argument("--pool-dir", metavar="DIR", type=commandline.path, help=meaning)


def settings(
    options: argparse.Namespace, say: Callable[[str], None], environ: Mapping[str, str] = os.environ
) -> Settings:
    """Return the settings that the command line asks for; ``say`` is told what it may not have meant.

    Raises UsageError with a report when they are wrong.
    """
    missing = [name for name in SERVER_HALF if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{', '.join(missing)} not installed: this command needs `pip install '.[server]'` in a checkout of pgleak"
        )
    from pgleak.settings import SettingsError  # noqa: PLC0415  needs the extra

    remarks: list[str] = []  # said when nothing is wrong: beside an error they would hide what it is about
    try:
        found = _named(options, remarks.append, environ)
    except SettingsError as error:
        raise UsageError(str(error)) from None
    if getattr(options, "web_config", None):
        found = replace(found, web_config_file=options.web_config)
    if getattr(options, "pool_dir", None):
        found = replace(found, pool_dir=options.pool_dir)
    found = _listening(found, options, environ)
    for remark in (*remarks, *variables.unread(environ, _READ)):
        say(remark)
    return found


def _named(options: argparse.Namespace, say: Callable[[str], None], environ: Mapping[str, str]) -> Settings:
    from pgleak.settings import Settings, from_yaml, single_target  # noqa: PLC0415  needs the extra

    is_named = options.dsn is not None or any(environ.get(name) for name in _NAMES_A_SERVER)
    if options.config:
        if given := _given(options, "dsn", "password_file", "server"):
            raise UsageError(f"{given[0]} goes with one server; --config names its own")
        return from_yaml(options.config, environ)
    if getattr(options, "pool_dir", None) and not is_named:
        if given := _given(options, "password_file", "server"):
            raise UsageError(f"{given[0]} goes with a server, and none is named: add --dsn, PGLEAK_DSN or PGHOST")
        if lone := [name for name in _NAMES_NONE if environ.get(name)]:
            say(f"only --pool-dir is looked at: {', '.join(lone)} without PGHOST names no server. {_HOW_TO_NAME}")
        return Settings(targets=())
    found = single_target(options.dsn, name=options.server, password_file=options.password_file, environ=environ)
    if options.dsn is not None and found.targets[0].dsn.has_password:
        say(
            "--dsn holds a password, and ps shows it to everybody on this machine: "
            "give it by PGLEAK_DSN, PGPASSWORD, ~/.pgpass or --password-file"
        )
    if not is_named:
        address = found.targets[0].dsn.address
        say(f"no server is named, so it is libpq's default: {address}. {_HOW_TO_NAME}, or many with --config")
    return found


def _listening(found: Settings, options: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Let the command line, else the environment, say where to listen, for a command that does."""
    from pgleak.settings import Listen  # noqa: PLC0415  needs the extra

    if not hasattr(options, "listen"):
        return found
    given, where = options.listen, f"--listen {options.listen}"
    if given is None:
        given = environ.get(variables.LISTEN) or None
        where = f"PGLEAK_LISTEN={given}" if given and _ADDRESS_LIKE.fullmatch(given) else "PGLEAK_LISTEN"
    if given is None:
        return found
    try:
        return replace(found, listen=Listen.parse(given))
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def _given(options: argparse.Namespace, *names: str) -> list[str]:
    """Return those of the options that stand on the command line, even if empty."""
    return [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None]
