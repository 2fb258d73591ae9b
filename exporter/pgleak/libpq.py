"""libpq connection strings, read without ever quoting them.

The complaints of libpq quote the piece that it stumbled over, and that piece is often the password: a ``%``
or a ``/`` in it is the usual mistake. Its text is used to recognise what is wrong, and is then thrown away.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

import psycopg2
from psycopg2.extensions import parse_dsn

from pgleak.secret import looks_like_credentials, looks_like_dsn

if TYPE_CHECKING:
    from collections.abc import Mapping

# Connection options up to PostgreSQL 18, to find the nearest to a misspelt one. What is valid, libpq decides.
OPTIONS = (
    *("host", "hostaddr", "port", "dbname", "user", "password", "passfile", "service"),
    *("connect_timeout", "client_encoding", "options", "application_name", "fallback_application_name"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
    *("replication", "target_session_attrs", "load_balance_hosts", "require_auth", "channel_binding"),
    *("gssencmode", "krbsrvname", "gsslib", "gssdelegation", "requirepeer"),
    *("sslmode", "sslnegotiation", "sslcompression", "sslcert", "sslkey", "sslpassword", "sslcertmode"),
    *("sslrootcert", "sslcrl", "sslcrldir", "sslsni", "sslkeylogfile"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "min_protocol_version", "max_protocol_version"),
    *("oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope"),
    *("scram_client_key", "scram_server_key"),
)

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_URI_PREFIXES = ("postgresql://", "postgres://")
_SCHEME = re.compile(r"(?:jdbc:)?([a-z][a-z0-9.-]*)(\+[a-z0-9_]+)?:", re.IGNORECASE)
_ENCODE = "in a user name or password write % as %25, @ as %40, / as %2F, : as %3A, ? as %3F"
_QUOTE = "put a value with spaces into single quotes"

# A fragment of libpq's message, and what we say instead.
_REASONS = (
    ("percent-encoded token", f"a % is not followed by two hexadecimal digits; {_ENCODE}"),
    ("forbidden value %00", "%00 (a NUL character) is not allowed"),
    ('missing "="', f"neither a URI (postgresql://...) nor key=value pairs (host=... dbname=...); {_QUOTE}"),
    ("unterminated quoted string", "a single quote is never closed"),
    ("missing key/value separator", "an option after the ? has no ="),
    ("extra key/value separator", "an option after the ? has more than one =; write = in a value as %3D"),
    ('matching "]"', "the [ of an IPv6 address is never closed"),
    ("IPv6 host address may not be empty", "the IPv6 address between [ and ] is empty"),
    ("unexpected character", "after the ] of an IPv6 address only a : or a / may follow"),
)


class DsnError(ValueError):
    """A connection string or password file that cannot be used. The text never holds a piece of a secret."""


def parse(text: str) -> dict[str, str]:
    """Return the options of a libpq URI or key=value string. Raises DsnError, which never quotes the text."""
    stripped = text.strip() if text.lstrip().startswith(_URI_PREFIXES) else text
    problem = _problem_before_parsing(stripped)
    options: dict[str, str] = {}
    if not problem:
        # Raised outside of the handler: inside, the original, which quotes, would hang on as the context.
        try:
            options = parse_dsn(stripped)
        except psycopg2.Error as error:
            problem = _reason(str(error))
        except UnicodeError:
            problem = f"a % escape gives no UTF-8 text; {_ENCODE}"
    problem = problem or _problem_with(options)
    if problem:
        raise DsnError(problem)
    return options


def check(options: Mapping[str, str]) -> None:
    """Raise DsnError when a value can be seen to be wrong without connecting."""
    if problem := _problem_with(options):
        raise DsnError(problem)


def _problem_before_parsing(text: str) -> str:
    if not text.strip():
        return "empty; to use libpq's own environment (PGHOST and so on), leave it out"
    if "\0" in text:
        return "a NUL character is not allowed"  # libpq would silently stop reading there
    if not text.isascii() and _unencodable(text):
        return "a character cannot be written as UTF-8"
    if text.startswith(_URI_PREFIXES):
        return _problem_with_credentials(text)
    scheme = _SCHEME.match(text.lstrip())
    if not scheme:
        return ""
    if scheme[1].lower() in {"postgresql", "postgres"} and scheme[2]:
        return "a SQLAlchemy URL; remove the +driver part, so that it starts with postgresql://"
    return "not a PostgreSQL URI; it must start with postgresql://, in lower case"


def _unencodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _problem_with_credentials(uri: str) -> str:
    """Find an @ or / in a password that libpq would take for the start of the host or database, and show."""
    address = uri.partition("://")[2]
    user, at, after = address.partition("@")
    if at and "/" not in user:
        address = after
    return f"an @ stands where none may; {_ENCODE}" if "@" in address.partition("?")[0] else ""


def _reason(message: str) -> str:
    unknown = re.search(r'invalid (?:connection option|URI query parameter:) "(.*)"', message, re.DOTALL)
    if unknown:
        near = difflib.get_close_matches(unknown[1], OPTIONS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"{_QUOTE}, and in a URI write & in a value as %26"
        return f"an option that libpq does not know; {hint}"
    for fragment, reason in _REASONS:
        if fragment in message:
            return reason
    return "libpq cannot read it"


def _problem_with(options: Mapping[str, str]) -> str:
    hosts, ports = (options.get(option, "").split(",") for option in ("host", "port"))
    if not all(port.strip().isascii() and _is_port(port.strip()) for port in ports):
        return f"the port is not a number from 1 to 65535; {_ENCODE}"
    if len(ports) not in {1, len(options.get("hostaddr", "").split(",")), len(hosts)}:
        return "several ports need as many hosts: one port for each, or one for all"
    if any("@" in host[1:] or looks_like_dsn(host) for host in hosts):  # a leading @ is an abstract socket
        return f"an @ or :// stands in the host; {_ENCODE}"
    if looks_like_credentials(options.get("service", "")):
        return "the service is itself a connection string; give only its name there"
    if looks_like_dsn(options.get("dbname", "")):
        return "the database name is itself a connection string; give only its name there"
    if options.get("sslmode", "prefer") not in _SSL_MODES:
        return f"sslmode must be one of {', '.join(_SSL_MODES)}"
    return ""


def _is_port(port: str) -> bool:
    return not port or (port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535)
