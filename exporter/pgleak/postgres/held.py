"""One held connection to one server: exactly one slot, no transaction left open, back by itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extensions

from pgleak.postgres.connection import connect, discard, wait
from pgleak.postgres.reasons import ReadError, classify, first_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgleak.dsn import Dsn
    from pgleak.settings import Timeouts

_FIRST_PAUSE = 1.0  # seconds until a second attempt to connect; doubles up to _LONGEST_PAUSE
_LONGEST_PAUSE = 10.0  # shorter than a usual scrape interval, so that recovery shows at the next scrape
_PATIENCE = 60.0  # seconds that an unanswered statement is waited for before the slot is given up
_PREPARED_ALREADY = "42P05"  # we believe it is not: in this session, every later read would fail as well


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
        discard(connection)
        self._forget()

    def _forget(self) -> None:
        self._connection = None
        self._cursor = None
        self._unanswered_since = None
        self._preparing = ""
        self._prepared.clear()
