"""One held connection to one server: exactly one slot, no transaction left open, no wait beyond a deadline.

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

_FIRST_PAUSE = 1.0  # seconds until a second attempt to connect; doubles up to _LONGEST_PAUSE
_LONGEST_PAUSE = 10.0  # shorter than a usual scrape interval, so that recovery shows at the next scrape
_STATEMENT_SHARE = 0.9  # of the budget: the server gives up before we do, and the connection survives
_KEEPALIVE_INTERVAL = 10  # seconds
_KEEPALIVE_COUNT = 3
_PATIENCE = 60.0  # seconds that an unanswered statement is waited for before the slot is given up
_PREPARED_ALREADY = "42P05"  # we believe it is not: in this session, every later read would fail as well

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
        _discard(connection)
        raise ReadError("timeout", f"no answer to a login within {timeouts.connect:g} s") from None
    except (psycopg2.Error, UnicodeDecodeError) as error:
        _discard(connection)
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


def _discard(connection: psycopg2.extensions.connection | None) -> None:
    if connection is not None and not connection.closed:
        connection.close()


class HeldConnection:
    """Keeps one session open from read to read and comes back by itself; not safe for concurrent use.

    After a failed attempt the next ones fail at once, with the same reason, until a pause is over: 1 s from the begin of
    the attempt at first, doubling up to 10 s. A statement that the server did not answer in time is waited for at the next
    reads: on a full server, a slot that is given up does not come back.
    """

    def __init__(self, dsn: Dsn, timeouts: Timeouts, clock: Callable[[], float] = time.monotonic) -> None:
        self._dsn = dsn
        self._timeouts = timeouts
        self._clock = clock
        self._connection: psycopg2.extensions.connection | None = None
        self._cursor: psycopg2.extensions.cursor | None = None  # of the statement that was sent last
        self._unanswered_since: float | None = None
        self._prepared: set[str] = set()
        self._preparing = ""  # by the statement that was sent last and has no answer yet
        self._pause = 0.0
        self._not_before = 0.0
        self._last_error = ReadError("other", "not tried yet")

    @property
    def server_version(self) -> int:
        """Version of the connected server as libpq counts it (160004 is 16.4); 0 when not connected."""
        return self._connection.server_version if self._connection else 0

    def ensure(self, deadline: float) -> None:
        """Connect unless connected. Raises :class:`ReadError`."""
        if self._connection is not None and not self._connection.closed:
            self._await_unanswered(deadline)
        if self._connection is not None and not self._connection.closed:
            return
        now = self._clock()
        if now < self._not_before:
            raise ReadError(self._last_error.reason, self._last_error.detail)
        self._forget()
        try:
            self._connection = connect(self._dsn, self._timeouts, deadline, self._clock)
            self._refuse_poolers(deadline)
        except ReadError as error:
            self.close()
            self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._not_before = now + self._pause
            self._last_error = error
            raise
        self._pause = self._not_before = 0.0
        if self.server_version >= 140000:  # a role's idle_session_timeout would end us between two scrapes
            self.execute("SET idle_session_timeout = 0", deadline)

    def _refuse_poolers(self, deadline: float) -> None:
        """Raise unless the session has the options that we sent.

        A pooler that swallows them (PgBouncer with ``ignore_startup_parameters = options``) would hand every SET and
        PREPARE of ours on to applications.
        """
        asking = "SELECT current_setting('default_transaction_read_only'), current_setting('search_path')"
        if self.execute(asking, deadline) != [("on", "pg_catalog")]:
            raise ReadError("configuration", "the session options did not arrive: there is a pooler in between")

    def _await_unanswered(self, deadline: float) -> None:
        connection, since = self._connection, self._unanswered_since
        if connection is None or since is None:
            return
        try:
            wait(connection, deadline, self._clock)
            if self._preparing:  # the server has prepared it after all
                self._prepared.add(self._preparing)
        except TimeoutError:
            if self._clock() - since >= _PATIENCE:
                self.close()
            raise ReadError("timeout", "still no answer to an earlier statement") from None
        except (psycopg2.Error, UnicodeDecodeError):
            if connection.closed or connection.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
                self.close()
        self._unanswered_since = None
        self._preparing = ""

    def run(self, name: str, statement: str, deadline: float) -> list[tuple[Any, ...]]:
        """Run a prepared statement and return its rows; the session must be connected.

        Raises :class:`ReadError`; after anything but an orderly refusal by the server the session is given up.
        """
        self.send(name, statement, deadline)
        return self.receive(deadline)

    def send(self, name: str, statement: str, deadline: float) -> None:
        """Begin a prepared statement, so that the server works while the caller does; ``receive`` then has the rows.

        Prepared once per session, so that the server neither parses nor plans it again at each scrape. Raises as
        :meth:`run` does.
        """
        if name not in self._prepared:
            self._preparing = name
            self.execute(f"PREPARE {name} AS {statement}", deadline)
            self._prepared.add(name)
            self._preparing = ""
        self._begin(f"EXECUTE {name}")

    def receive(self, deadline: float) -> list[tuple[Any, ...]]:
        """Wait for what was sent last and return its rows. Raises as :meth:`run` does."""
        connection, cursor = self._connection, self._cursor
        if connection is None or cursor is None:
            raise ReadError("connection_lost", "not connected")
        try:
            with cursor:
                wait(connection, deadline, self._clock)
                self._unanswered_since = None
                return cursor.fetchall() if cursor.description else []
        except TimeoutError:
            raise ReadError("timeout", "no answer to a statement in time") from None
        except (psycopg2.Error, UnicodeDecodeError) as error:
            raise self._fault(error) from None

    def execute(self, statement: str, deadline: float) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows, as :meth:`run` does."""
        self._begin(statement)
        return self.receive(deadline)

    def _begin(self, statement: str) -> None:
        if self._connection is None:
            raise ReadError("connection_lost", "not connected")
        try:
            self._cursor = self._connection.cursor()
            self._cursor.execute(statement)
        except (psycopg2.Error, UnicodeDecodeError) as error:
            raise self._fault(error) from None
        self._unanswered_since = self._clock()

    def _fault(self, error: psycopg2.Error | UnicodeDecodeError) -> ReadError:
        """Say what went wrong; the session lives on only where the server refused in good order."""
        self._unanswered_since = None
        self._preparing = ""
        reason = classify(error, connected=True)
        code = getattr(error, "pgcode", None)
        if (
            self._connection is None
            or self._connection.closed
            or code is None
            or code == _PREPARED_ALREADY
            or reason in ("connection_lost", "starting_or_stopping")
        ):
            self.close()
        return ReadError(reason, self._dsn.redact(first_line(error)))

    def close(self) -> None:
        """Give the slot back."""
        connection, self._connection = self._connection, None
        _discard(connection)
        self._forget()

    def _forget(self) -> None:
        self._connection = None
        self._cursor = None
        self._unanswered_since = None
        self._preparing = ""
        self._prepared.clear()
