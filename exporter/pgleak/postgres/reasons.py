"""Why a read or a login failed: a fixed set of reasons, told from what libpq and PostgreSQL say.

psycopg2 gives no SQLSTATE for a refused login, so refusals are told by their English texts (in PostgreSQL's sources:
``postmaster.c``, ``proc.c``, ``postinit.c``, ``auth.c``; in libpq ``fe-connect.c``). A server that speaks another
language (``lc_messages``) is counted under ``other``, with its own words in the log.
"""

from __future__ import annotations

import re

import psycopg2

from pgleak.secret import without_connection_strings

REASONS: dict[str, str] = {
    "timeout": "No answer in time: the server is frozen or overloaded, or packets are dropped on the way.",
    "unreachable": "Nothing listens there, or the name does not resolve: server stopped, wrong host or port.",
    "authentication": "Password, certificate, role or pg_hba.conf: the server refused who we are.",
    "database_missing": "The database in the DSN does not exist or takes no connections.",
    "slots_exhausted": "The server is full: every slot that this role may use is taken.",
    "role_limit": "The role's own CONNECTION LIMIT is reached.",
    "database_limit": "The database's own CONNECTION LIMIT is reached.",
    "starting_or_stopping": "The server is starting up, shutting down or in recovery and takes no logins.",
    "connection_lost": "The held connection broke: server restarted or killed, session terminated, network cut.",
    "statement_timeout": "The server did not finish the statement within its time: overloaded.",
    "lock_timeout": "A catalogue is locked by somebody (VACUUM FULL, DDL on pg_database).",
    "permission": "The role may not read what it needs.",
    "tls": "TLS was refused, or a certificate did not fit.",
    "configuration": "The settings of this target do not work: password file, service, libpq option.",
    "other": "Anything else; the log line has the server's own words.",
}
"""Reason -> what it means: the values of the label ``reason``."""

_SQLSTATES = {
    "57014": "statement_timeout",
    "55P03": "lock_timeout",
    "42501": "permission",
    "28000": "authentication",
    "28P01": "authentication",
    "3D000": "database_missing",
    "57P01": "connection_lost",
    "57P02": "connection_lost",
    "57P05": "connection_lost",
    "57P03": "starting_or_stopping",
}

_TEXTS = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (r"too many clients already|remaining connection slots are reserved", "slots_exhausted"),
        (r"too many connections for role", "role_limit"),
        (r"too many connections for database", "database_limit"),
        (
            r"the database system is (starting up|shutting down|not (yet )?accepting|in recovery)",
            "starting_or_stopping",
        ),
        (r"database \".*\" (does not exist|is not currently accepting connections)", "database_missing"),
        (
            r"no pg_hba\.conf entry|pg_hba\.conf rejects|authentication failed|no password supplied",
            "authentication",
        ),
        (
            r"role \".*\" (does not exist|is not permitted to log in)|not permitted to log in",
            "authentication",
        ),
        (
            r"authentication method .* not supported|requires a password|password is required",
            "authentication",
        ),
        (r"permission denied for database", "authentication"),
        (r"\bSSL\b|\bTLS\b|certificate", "tls"),
        (
            r"definition of service|service file|local user with ID|unrecognized configuration parameter",
            "configuration",
        ),
        (
            r"unsupported startup parameter|invalid (port|connection option|value)|unsupported frontend",
            "configuration",
        ),
        (r"timeout expired|connection timed out|timed out", "timeout"),
        (
            r"connection refused|could not translate host name|no route to host|network is unreachable",
            "unreachable",
        ),
        (r"no such file or directory|host is down|name or service not known", "unreachable"),
        (
            r"terminating connection|server closed the connection|connection reset|broken pipe",
            "connection_lost",
        ),
    )
)


_LONGEST_READ = 2_000  # characters of a message: a server may send any number


class ReadError(Exception):
    """A read or login that failed for one of :data:`REASONS`; ``str`` is safe to show."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def classify(error: psycopg2.Error | UnicodeDecodeError, *, connected: bool) -> str:
    """Return the reason for an error of psycopg2. ``connected`` says whether the session was established before."""
    reason = _SQLSTATES.get(getattr(error, "pgcode", None) or "")
    if reason is None:
        text = re.sub(r'"[^"]*"', '""', _said(error))  # a host may be called tls-db
        reason = next((reason for pattern, reason in _TEXTS if pattern.search(text)), None)
    if reason is None:
        return "connection_lost" if connected and isinstance(error, psycopg2.OperationalError) else "other"
    if connected and reason in ("tls", "timeout", "unreachable"):
        return "connection_lost"
    return reason


def first_line(error: BaseException) -> str:
    """Return what the server or libpq said, on one line and bounded, without the part that every message repeats."""
    lines = [line for line in _said(error).splitlines() if not line.startswith("\t")]  # libpq's advice is indented
    text = " ".join(" ".join(lines).split())
    text = re.sub(r'^connection to server on (socket ".*?") failed: ', r"\1: ", text)  # which one, the user did not say
    text = re.sub(r"^connection to server .*? failed: ", "", text)
    return without_connection_strings(text[:_LONGEST_READ])[:300] or type(error).__name__


def _said(error: BaseException) -> str:
    """What the server said; psycopg2 gives up on a message that is not in the encoding it expects."""
    if isinstance(error, UnicodeDecodeError):
        return error.object.decode("latin-1")
    return str(error)
