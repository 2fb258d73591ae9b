"""Tries everything that watching a target needs, and says what works and what to do about the rest."""

from __future__ import annotations

import stat
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pgleak.finding import Finding
from pgleak.postgres import activity, role
from pgleak.postgres.grants import FIRST_WITH_RESERVED, OLDEST_SUPPORTED
from pgleak.postgres.held import HeldConnection
from pgleak.postgres.names import Namer
from pgleak.postgres.queries import load
from pgleak.postgres.reasons import REASONS, ReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pgleak.dsn import Dsn
    from pgleak.postgres.evidence import Packed
    from pgleak.settings import Settings, Target

_ROLE = """
SELECT current_user::text,
    EXISTS (SELECT FROM pg_settings WHERE name = 'reserved_connections' AND pending_restart)
"""

NEARLY_FULL = 0.8  # of what ordinary roles may use

REMEDIES: dict[str, str] = {
    "timeout": "look at the server's load and at what is in between: a firewall that drops packets looks like this",
    "unreachable": "check host and port, that the server runs, and listen_addresses",
    "authentication": "check user, password (password_file, PGPASSWORD, ~/.pgpass) and pg_hba.conf; `pgleak grants` prints the role",
    "database_missing": "name a database that exists; `postgres` is there on most servers",
    "slots_exhausted": "on PostgreSQL 16 and later set reserved_connections and grant pg_use_reserved_connections (see `pgleak grants`); "
    "before, free a slot: pgleak has to be connected before the server is full",
    "role_limit": "raise the CONNECTION LIMIT of the role, or stop what else uses it",
    "database_limit": "raise the CONNECTION LIMIT of the database, or watch from another one",
    "starting_or_stopping": "wait for the server; a standby needs hot_standby = on",
    "connection_lost": "look into the server's log",
    "statement_timeout": "the server is overloaded, or timeouts.scrape is too short",
    "lock_timeout": "find who locks pg_database or pg_authid (pg_locks)",
    "permission": "`pgleak grants` prints what the role needs",
    "tls": "check sslmode, sslrootcert and the certificates",
    "configuration": "correct the settings of this target; services are looked up in PGSERVICEFILE, ~/.pg_service.conf and "
    "the system's pg_service.conf; a pooler such as PgBouncer in between is not supported: connect "
    "to PostgreSQL itself",
    "other": "the server's own words are above; with a lc_messages other than English they are not understood",
}
"""Reason -> what to do."""


def check(target: Target, settings: Settings, clock: Callable[[], float] = time.monotonic) -> Iterator[Finding]:
    """Yield the findings about one target, as they are made. Never raises for what a server does."""
    connection = HeldConnection(target.dsn, settings.timeouts, clock)
    try:
        yield from _check_server(connection, target.dsn, settings, clock)
    finally:
        connection.close()
    ways = [target.dsn, *([target.canary.dsn] if target.canary else [])]
    for path in dict.fromkeys(way.password_file for way in ways if way.password_file):
        yield from _password_file(path)
    if target.canary:
        yield from _check_canary(target.canary.dsn, settings, clock)
    else:
        yield Finding("info", "canary", "none configured; refused logins are told from the number of slots alone")


def _check_server(
    connection: HeldConnection, dsn: Dsn, settings: Settings, clock: Callable[[], float]
) -> Iterator[Finding]:
    started = clock()
    try:
        connection.ensure(started + settings.timeouts.scrape)
    except ReadError as error:
        yield _failure("reachable", error)
        return
    yield Finding("ok", "reachable", f"{dsn.address}, login in {(clock() - started) * 1000:.0f} ms")
    yield _version(connection.server_version)
    try:
        deadline = clock() + settings.timeouts.scrape
        server = activity.server(connection.execute(load("server"), deadline))
        started = clock()
        packs = activity.packed(connection.execute(load("activity"), deadline))
        took = (clock() - started) * 1000
        ((user, waits),) = connection.execute(_ROLE, deadline)
    except ReadError as error:
        yield _failure("readable", error)
        return
    yield _role(str(user), server)
    yield _privileges(server)
    yield _reserved(server, connection.server_version, restart_is_due=bool(waits))
    yield _capacity(activity.used(packs), server)
    yield _largest(packs, settings)
    yield Finding("ok", "reading", f"pg_stat_activity read in {took:.1f} ms")


def _failure(subject: str, error: ReadError) -> Finding:
    return Finding("fail", subject, f"{error.detail} ({error.reason}). {REASONS[error.reason]}", REMEDIES[error.reason])


def _canary_failure(error: ReadError) -> Finding:
    if error.reason in ("slots_exhausted", "role_limit", "database_limit"):
        # The server can be watched, and the canary does what it is for.
        return Finding("warn", "canary", f"{error.detail} ({error.reason})", "applications like it are refused now")
    return _failure("canary", error)


def _version(number: int) -> Finding:
    text = f"PostgreSQL {number // 10000}.{number % 10000}"
    if number // 10000 < OLDEST_SUPPORTED:
        return Finding("warn", "version", text, f"the oldest version that pgleak is made for is {OLDEST_SUPPORTED}")
    return Finding("ok", "version", text)


def _role(user: str, server: activity.Server) -> Finding:
    if server.superuser:
        return Finding("warn", "role", f"{user} is a superuser", role.SUPERUSER)
    return Finding("ok", "role", f"{user}, not a superuser")


def _privileges(server: activity.Server) -> Finding:
    if server.stats_visible:
        return Finding("ok", "privileges", "sees the state of all sessions (pg_read_all_stats)")
    return Finding("warn", "privileges", role.BLIND, role.BLIND_REMEDY)


def _reserved(server: activity.Server, version: int, *, restart_is_due: bool) -> Finding:
    if version // 10000 < FIRST_WITH_RESERVED:
        return Finding(
            "info",
            "reserved slots",
            f"PostgreSQL {version // 10000} has none for roles like this; the held connection goes on when the server is "
            "full, a fresh start then has to wait",
        )
    if server.superuser or (server.may_use_reserved and server.reserved):
        return Finding("ok", "reserved slots", "can log in when every ordinary slot is taken")
    missing = [] if server.may_use_reserved else ["GRANT pg_use_reserved_connections to the role"]
    if restart_is_due:
        missing.append("restart the server: reserved_connections was changed and waits for that (pending_restart)")
    elif not server.reserved:
        missing.append("set reserved_connections to 2 or so (needs a restart)")
    return Finding(
        "warn",
        "reserved slots",
        "a fresh start when the server is full will be refused",
        " and ".join(missing),
    )


def _capacity(used: int, server: activity.Server) -> Finding:
    reserved = server.superuser_reserved + server.reserved
    text = f"{used} of {server.usable} connections used (max_connections {server.max_connections}, {reserved} reserved)"
    if used > server.usable:
        return Finding(
            "warn",
            "capacity",
            f"FULL: {text}",
            "ordinary roles are refused now: `pgleak who` says who holds them, and the SQL that ends it",
        )
    if used >= NEARLY_FULL * server.usable:
        return Finding("warn", "capacity", text, "it is nearly full: `pgleak who` says who holds them")
    return Finding("ok", "capacity", text)


def _largest(packs: list[Packed], settings: Settings) -> Finding:
    """Say who holds most, and how many of those look leaked: the first question when it is full."""
    namer = Namer(replace(settings, group_by=("application_name",)))
    applications = activity.summarise(packs, namer.places(packs, 0.0), settings.thresholds)
    largest = sorted(applications.items(), key=lambda item: -item[1].connections)[:3]
    shown = [
        f"{name} {application.connections}"
        + (f" ({sum(application.suspects)} suspects)" if any(application.suspects) else "")
        for (name,), application in largest
    ]
    return Finding("info", "applications", ", ".join(shown))


def _password_file(path: Path) -> Iterator[Finding]:
    """No more than a remark: Kubernetes and Docker mount secrets like this, where nobody else is."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return  # which the login has said
    if mode & stat.S_IROTH:
        remedy = "chmod it to 0600, or to 0640 with a group of its own; in a container where nobody else is, leave it"
        yield Finding("info", "password file", f"{path} can be read by everybody here (mode {mode:04o})", remedy)


def _check_canary(dsn: Dsn, settings: Settings, clock: Callable[[], float]) -> Iterator[Finding]:
    connection = HeldConnection(dsn, settings.timeouts, clock)
    started = clock()
    try:
        connection.ensure(started + settings.timeouts.scrape)
        took = (clock() - started) * 1000
        server = activity.server(connection.execute(load("server"), clock() + settings.timeouts.scrape))
    except ReadError as error:
        yield _canary_failure(error)
        return
    finally:
        connection.close()
    if server.superuser or (server.may_use_reserved and server.reserved):
        yield Finding(
            "warn",
            "canary",
            f"logs in in {took:.0f} ms, but over reserved slots",
            "its role must be an ordinary one, or it will get in when the application does not",
        )
    else:
        yield Finding("ok", "canary", f"{dsn.address}, login as an ordinary role in {took:.0f} ms")
