"""A way into one server: a login with the options that keep a session harmless, and no wait beyond a deadline.

psycopg2's asynchronous mode is used although nothing else is asynchronous here, for two properties: it is always in
autocommit (inside a transaction ``pg_stat_activity`` is frozen), and every wait is ours, so that a frozen server or a
host that swallows packets costs the caller its deadline and not more.
"""

from __future__ import annotations

import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extensions

from pgleak.dsn import Dsn, DsnError
from pgleak.postgres.reasons import ReadError, classify, first_line
from pgleak.postgres.resolve import resolved

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgleak.settings import Timeouts

APPLICATION_NAME = "pgleak"
"""How the exporter's own session shows in ``pg_stat_activity``, unless the DSN says otherwise."""

_STATEMENT_SHARE = 0.9  # of the budget: the server gives up before we do, and the connection survives
_KEEPALIVE_INTERVAL = 10  # seconds
_KEEPALIVE_COUNT = 3

# Names in shared catalogues are bytes in the encoding of whatever database made them. Asking for no conversion and
# reading them as Latin-1 cannot fail; activity._text() turns them into text.
for _key in ("SQL_ASCII", "SQLASCII"):
    psycopg2.extensions.encodings[_key] = "latin_1"


def _keepalives(timeouts: Timeouts) -> dict[str, str]:
    """When to ask whether the other side is there: the client does, and the server."""
    return {
        "keepalives_idle": str(max(int(timeouts.keepalive_idle), 1)),
        "keepalives_interval": str(_KEEPALIVE_INTERVAL),
        "keepalives_count": str(_KEEPALIVE_COUNT),
    }


def session_options(timeouts: Timeouts) -> str:
    """Return libpq ``options`` that keep a session harmless from its first moment.

    They travel in the startup packet, and not in a SET: a pooler in between refuses them instead of handing them on to
    somebody else's session.
    """
    milliseconds = {
        "statement_timeout": timeouts.scrape * _STATEMENT_SHARE * 1000,
        "lock_timeout": timeouts.lock * 1000,
        "idle_in_transaction_session_timeout": 10_000,
    }
    fixed = {"default_transaction_read_only": "on", "search_path": "pg_catalog", "jit": "off"}
    # The planner expects one row from pg_stat_get_activity() and would sort thousands of wide ones; hashing is cheaper.
    fixed["enable_sort"] = "off"
    # How values are written down, whatever the role or the database is set to.
    fixed |= {"bytea_output": "hex", "extra_float_digits": "1"}
    # By its system's default the server asks after two hours whether we are still there. Until then each cut of the network
    # would leave a session of ours behind, and a role with a limit of three would soon be refused for them.
    fixed |= {f"tcp_{name}": value for name, value in _keepalives(timeouts).items()}
    settings = {name: str(int(value)) for name, value in milliseconds.items()} | fixed
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def wait(connection: psycopg2.extensions.connection, deadline: float, clock: Callable[[], float]) -> None:
    """Drive an asynchronous connection until it is at rest.

    ``deadline`` is in seconds of ``clock``. Raises ``TimeoutError`` when it passes, ``psycopg2.Error`` as psycopg2 does.
    """
    poller = select.poll()
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        events = select.POLLOUT if state == psycopg2.extensions.POLL_WRITE else select.POLLIN
        descriptor = connection.fileno()
        if clock() >= deadline:
            raise TimeoutError
        poller.register(descriptor, events)
        poller.poll(max(deadline - clock(), 0) * 1000)
        poller.unregister(descriptor)


def connect(
    dsn: Dsn,
    timeouts: Timeouts,
    deadline: float,
    clock: Callable[[], float] = time.monotonic,
    *,
    application_name: str = APPLICATION_NAME,
) -> psycopg2.extensions.connection:
    """Open a session with the options that a watcher needs.

    ``deadline`` is in seconds of ``clock``. Raises :class:`ReadError`, and then leaves no socket behind.
    """
    deadline = min(deadline, clock() + timeouts.connect)
    connection: psycopg2.extensions.connection | None = None
    try:
        connection = psycopg2.connect(async_=1, **_parameters(dsn, timeouts, application_name))
        wait(connection, deadline, clock)
    except DsnError as error:
        raise ReadError("configuration", str(error)) from None
    except TimeoutError:
        discard(connection)
        raise ReadError("timeout", f"no answer to a login within {timeouts.connect:g} s") from None
    except (psycopg2.Error, UnicodeDecodeError) as error:
        discard(connection)
        raise ReadError(classify(error, connected=False), dsn.redact(first_line(error))) from None
    _relax(connection, timeouts)
    return connection


def _relax(connection: psycopg2.extensions.connection, timeouts: Timeouts) -> None:
    """Let the session live through a short cut of the network: the limit that served the login is too short for it."""
    if connection.info.host.startswith("/"):
        return
    with socket.socket(fileno=os.dup(connection.fileno())) as wire:
        if wire.family in (socket.AF_INET, socket.AF_INET6):
            keepalives = timeouts.keepalive_idle + _KEEPALIVE_INTERVAL * _KEEPALIVE_COUNT
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(keepalives * 1000))


def version_and_database(dsn: Dsn, timeouts: Timeouts) -> tuple[int, str]:
    """Log in and return the server's version as libpq counts it (160004 is 16.4), and the database.

    Raises :class:`ReadError`.
    """
    connection = connect(dsn, timeouts, time.monotonic() + timeouts.connect)
    found = connection.server_version, str(connection.info.dbname)
    connection.close()
    return found


def _parameters(dsn: Dsn, timeouts: Timeouts, application_name: str) -> dict[str, Any]:
    given = dsn.parameters()
    given.update(resolved(given))
    hosts = 1 + max(given.get("host", "").count(","), given.get("hostaddr", "").count(","))
    ours = {
        "application_name": application_name,
        "keepalives": "1",
        **_keepalives(timeouts),
        # For the login alone, see _relax(): of several hosts, a silent one is left for the next in time.
        "tcp_user_timeout": str(int(timeouts.connect * 1000 * 0.8 / hosts)),
    }
    return {
        **ours,
        **given,
        "client_encoding": "SQL_ASCII",
        "options": " ".join(part for part in (given.get("options", ""), session_options(timeouts)) if part),
    }


def discard(connection: psycopg2.extensions.connection | None) -> None:
    """Close a connection that may be closed already, or none."""
    if connection is not None and not connection.closed:
        connection.close()
