"""Which texts may hold a password, told without a driver."""

from __future__ import annotations

import re

# Values that nobody may see. `passfile` and `sslkey` are paths, not secrets.
SECRET_OPTIONS = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})


def looks_like_dsn(text: str) -> bool:
    """Whether a text may well be a connection string, so that showing it may show a password."""
    lowered = text.lower()
    return "://" in lowered or any(f"{option}=" in lowered.replace(" ", "") for option in SECRET_OPTIONS)


def looks_like_credentials(text: str) -> bool:
    """Whether a text that should be a name may well be a connection string, or the ``user:password@host`` of one."""
    return looks_like_dsn(text) or "@" in text.partition(":")[2]


_NOT_SHOWN = "(not shown)"
_CONNECTION_STRING = re.compile(
    rf"""
    (?!https?://[^@]*$) \b[a-z][\w+.-]*://    # but for a link that a server gives as advice
    | [^\s:"]:\S*@ | "[^"]*\S:[^"]*@      # user:password@host
    | \b(?:{"|".join(SECRET_OPTIONS)})\s*=
    """,
    re.IGNORECASE | re.VERBOSE,
)


def without_connection_strings(message: str) -> str:
    """Return what libpq or a server said without the connection string that somebody put in the place of a name.

    They quote the name of a service, host, user or database that they cannot use, whatever it holds. Such a quotation, or
    all from such a word on where there is none, is not shown.
    """
    found = _CONNECTION_STRING.search(message)
    if not found:
        return message
    start = message.rfind('"', 0, found.start() + 1) + 1 or message.rfind(" ", 0, found.start() + 1) + 1
    end = message.rfind('"')
    return f"{message[:start]}{_NOT_SHOWN}{message[end:] if end >= found.end() else ''}"
