"""What is checked out of the pools of this process, by whom, since when.

Everything here may be entered by the garbage collector at any allocation, in any thread, while the same thread is in the
midst of anything: so there are no locks. What is shared between threads changes in single steps (one dict or attribute
store, or `+=` on an int, which the interpreter does not interrupt), and readers copy before they iterate.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

from pgleak.pool.connection import MARK, Connection
from pgleak.pool.drivers import facts
from pgleak.pool.origin import is_helper, is_plain
from pgleak.pool.sites import Site
from pgleak.pool.snapshot import CREATE_BOUNDS, Limits

if TYPE_CHECKING:
    from types import CodeType

    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import ConnectionPoolEntry

    from pgleak.pool.connection import Holding
    from pgleak.pool.origin import Stack

CLOSED_REASONS = (
    "collected", "detached", "disposed", "evicted", "invalidated", "other", "recycled", "returned", "soft_invalidated",
)  # fmt: skip

_SITES = 1000  # per pool; programs that compile code as they run would add sites without end
_FINISHED = 1000  # endings remembered until the monitor asks

numbers = count(1)


class Witness(Protocol):
    """Is told what was let go without a word. Called wherever the garbage collector runs: must not lock or raise."""

    def lost(self, pool: str, holding: Holding) -> None:
        """A checkout that its holder never returned has ended."""

    def collected(self, pool: str, connection: Connection) -> None:
        """An idle connection died with the pool that kept it."""


witnesses: list[Witness] = []


class WatchedEngine:
    """An engine, known without keeping it alive."""

    __slots__ = (
        "application_name", "born", "engine", "given_name", "ledger", "listeners", "made", "names_connections", "number",
        "server", "whose",
    )  # fmt: skip

    def __init__(self, engine: Engine, ledger: PoolLedger, application_name: str, server: str) -> None:
        key = id(engine)
        self.ledger = ledger
        self.application_name = application_name
        self.given_name: str | None = None  # the same where it was given, and does not follow the pool's name
        self.server = server
        self.listeners: list[tuple[str, Any]] = []
        self.born = time.monotonic()
        self.number = next(numbers)  # in one order with the checkouts
        self.made: Stack = ()  # the code that made the engine; known only where it was watched from the start
        self.names_connections = False
        # server, role and options of its connections, which `connect_args` may have given
        self.whose: tuple[str, ...] = ()
        engines = ledger.engines
        self.engine: ref[Engine] = ref(engine, lambda _: engines.pop(key, None))
        engines[key] = self

    def adopt(self, dbapi_connection: Any, record: ConnectionPoolEntry | None, opened: float) -> Connection:
        """Begin to follow a connection. Its driver object dies on every path on which the connection does.

        Engines that share a pool are each told of its connections: the first one follows them.
        """
        ledger = self.ledger
        key = id(dbapi_connection)
        known: Connection | None = getattr(record, MARK, None)
        if known is not None and known.key == key and known.engine.ledger.connections.get(key) is known:
            return known
        connection = Connection(key, self, opened)
        driver = None
        if record is not None:
            driver = record.driver_connection
            pool = getattr(record, "_ConnectionRecord__pool", None)
            if pool is None:
                engine = self.engine()
                pool = engine.pool if engine is not None else None
            connection.pool = ref(pool) if pool is not None else None
        told = facts(driver)
        connection.pid = told.pid
        connection.server = told.server or self.server
        self.whose = (connection.server, *told.role)
        ledger.application_name = told.application_name or ledger.application_name
        try:
            connection.driver = ref(driver, _Death(ledger, connection))
        except TypeError:
            connection.driver = None  # a driver without weak references: its close events have to do
        ledger.connections[key] = connection
        if record is not None:
            connection.mark(record)
        return connection

    def adopt_checked_out(self, proxy: Any) -> Connection:
        """Follow a connection that was opened before the engine was watched."""
        record = getattr(proxy, "_connection_record", None)
        return self.adopt(proxy.dbapi_connection, record, getattr(record, "last_connect_time", 0) or time.time())


class _Death:
    """Called when a driver's connection object dies: by then it is closed, with or without an event."""

    __slots__ = ("_connection", "_ledger")

    def __init__(self, ledger: PoolLedger, connection: Connection) -> None:
        self._ledger = ledger
        self._connection = ref(connection)  # else the connection would hold itself

    def __call__(self, _: object) -> None:
        try:
            connection = self._connection()
            if connection is not None:
                self._ledger.closed_for(connection, connection.reason or "collected")
        except Exception:  # noqa: BLE001 - nothing of ours may surface in whatever the collector interrupted
            self._ledger.errors += 1


class PoolLedger:
    """Everything under one pool name, which outlives the engines that come and go under it."""

    __slots__ = (
        "application_name",
        "closed",
        "connections",
        "create_counts",
        "create_seconds",
        "direct",
        "ended",
        "engines",
        "errors",
        "irregular",
        "name",
        "nowhere",
        "opened",
        "other",
        "pending",
        "pool_class",
        "server",
        "sites",
        "suspects",
        "suspects_returned",
        "timeouts",
        "waited",
    )  # fmt: skip

    def __init__(self, name: str, server: str) -> None:
        self.name = name
        self.server = server
        self.application_name = ""
        self.pool_class = ""
        self.connections: dict[int, Connection] = {}
        self.engines: dict[int, WatchedEngine] = {}
        self.sites: dict[int, Site] = {}  # by the id of the code object, which the site keeps
        self.direct: dict[int, Site] = {}  # those of plain functions of the application
        self.nowhere = Site(None)  # no frame of the application
        self.other = Site(None)  # beyond the cap
        self.irregular = Site(None)  # what the collector brought back: tells nothing about a site's habits
        self.errors = 0
        self._zero()

    def _zero(self) -> None:
        self.opened = 0
        self.timeouts = 0
        self.waited = 0.0
        self.pending = 0
        self.create_counts = [0] * (len(CREATE_BOUNDS) + 1)
        self.create_seconds = 0.0
        self.closed = dict.fromkeys(CLOSED_REASONS, 0)
        self.suspects: dict[str, int] = {}  # these two by the monitor only
        self.suspects_returned: dict[str, int] = {}
        self.ended: list[int] = []  # numbers of checkouts that ended otherwise than by being returned

    def site(self, code: CodeType) -> Site:
        """The site of a code object that was not seen before."""
        if len(self.sites) >= _SITES:
            return self.other
        site = self.sites.setdefault(id(code), Site(code))
        if is_plain(code):
            self.direct[id(code)] = site
        return site

    def look_past_helpers(self) -> None:
        """Take none of them for a site from now on."""
        for key, site in self.direct.copy().items():
            if site.code is not None and is_helper(site.code):
                self.direct.pop(key, None)

    def all_sites(self) -> list[Site]:
        return [self.nowhere, self.other, *self.sites.copy().values()]

    def record_creation(self, seconds: float) -> None:
        self.opened += 1
        seconds = max(seconds, 0.0)  # the wall clock may have been set back meanwhile
        self.create_counts[bisect_left(CREATE_BOUNDS, seconds)] += 1
        self.create_seconds += seconds

    def lost(self, holding: Holding, used: float, *, collected: bool) -> None:
        """A checkout ended without being returned by its holder."""
        if collected:
            holding[5].returned_by_gc += 1
            for witness in witnesses:
                witness.lost(self.name, holding)
        self.irregular.record(used)
        self.ended.append(holding[0])
        if len(self.ended) > 2 * _FINISHED:
            del self.ended[:_FINISHED]

    def closed_for(self, connection: Connection, reason: str) -> None:
        """The connection is gone. Counted once, whatever events and weak references say afterwards."""
        if self.connections.get(connection.key) is not connection:
            return
        self.connections.pop(connection.key, None)
        connection.unmark()
        if connection.inherited:
            if connection.misuse is not None:
                self.ended.append(connection.misuse[0])
            return
        self.closed[reason] += 1
        holding = connection.out
        if holding is not None:
            connection.out = None
            self.lost(
                holding, time.monotonic() - holding[1], collected=reason == "collected" and not connection.detached
            )
        elif reason == "collected":
            for witness in witnesses:
                witness.collected(self.name, connection)

    def forked(self, parent: int) -> None:
        """In the child: what the parent opened is the parent's; all counters begin anew."""
        for connection in self.connections.copy().values():
            connection.inherited = connection.inherited or parent
            connection.out = connection.misuse = None
            connection.shared = ()
            connection.unmark()  # so that its first checkout here is noticed
        for site in (*self.all_sites(), self.irregular):
            site.forget()
        self._zero()


class Ledger:
    """All pools of this process."""

    def __init__(self) -> None:
        self.pools: dict[str, PoolLedger] = {}
        self.limits = Limits()
        self.errors = 0  # outside of any pool
        self.process = os.getpid()

    def pool(self, name: str, server: str) -> PoolLedger:
        pool = self.pools.get(name)
        return pool if pool is not None else self.pools.setdefault(name, PoolLedger(name, server))

    def watched(self, engine: Engine) -> WatchedEngine | None:
        """What is known of this engine, None when it is not instrumented."""
        key = id(engine)
        for pool in self.pools.copy().values():
            watched = pool.engines.get(key)
            if watched is not None and watched.engine() is engine:
                return watched
        return None

    def forked(self) -> None:
        parent, self.process = self.process, os.getpid()
        for pool in self.pools.copy().values():
            pool.forked(parent)


LEDGER = Ledger()
