"""SQLAlchemy's events, written down in the ledger.

Listeners run inside the application's checkout and, when the garbage collector brings a connection back, inside anything
at all. So none of them takes a lock, logs, touches a metric or raises, and none keeps anything of SQLAlchemy's alive.
"""

from __future__ import annotations

import sys
import time
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy import event

from pgleak.pool import checkouts, drivers, naming
from pgleak.pool.ledger import WatchedEngine, numbers
from pgleak.pool.marks import NOTHING
from pgleak.pool.owner import UNKNOWN_OWNER

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Engine

    from pgleak.pool.ledger import Ledger

# Who asked for an idle connection to be closed, by the name of SQLAlchemy's function.
_CLOSERS = {"dispose": "disposed", "get_connection": "recycled", "_do_return_conn": "returned", "_cleanup": "evicted"}


def attach(engine: Engine, ledger: Ledger, name: str, application_name: str) -> WatchedEngine:
    """Listen to an engine that is not listened to yet."""
    server = drivers.address(engine.url)
    pool_ledger = ledger.pool(name, server)
    pool_ledger.pool_class = type(engine.pool).__name__
    watched = WatchedEngine(engine, pool_ledger, application_name, server)
    listeners = _rare_listeners(watched)
    if not checkouts.sees_returns(type(engine.pool)):
        listeners.append(_checkin_listener(watched))
    for event_name, listener in listeners:
        listener.pgleak = watched
        event.listen(engine, event_name, listener)
        watched.listeners.append((event_name, listener))
    naming.install(watched, engine)
    return watched


def detach(watched: WatchedEngine) -> None:
    """Stop listening. The engine is then as it was before `attach`."""
    engine = watched.engine()
    watched.ledger.engines.pop(id(engine), None)
    for key, connection in watched.ledger.connections.copy().items():
        if connection.engine is watched:
            watched.ledger.connections.pop(key, None)
            connection.unmark()
    if engine is None:
        return
    for event_name, listener in watched.listeners:
        if event.contains(engine, event_name, listener):
            event.remove(engine, event_name, listener)
    watched.listeners.clear()
    naming.remove(watched, engine)


def _checkin_listener(watched: WatchedEngine) -> tuple[str, Any]:
    ledger = watched.ledger

    def checkin(dbapi_connection: Any, connection_record: Any) -> None:
        connection = ledger.connections.get(id(dbapi_connection))
        if connection is not None:
            connection.returned()
        elif dbapi_connection is not None:
            watched.adopt(dbapi_connection, connection_record, time.time())

    return "checkin", _harmless(checkin, ledger)


def _rare_listeners(watched: WatchedEngine) -> list[tuple[str, Any]]:
    ledger = watched.ledger
    find_connection = ledger.connections.get

    def connect(dbapi_connection: Any, connection_record: Any) -> None:
        now = time.time()
        if watched.adopt(dbapi_connection, connection_record, now).engine is not watched:
            return
        # SQLAlchemy notes the time before it connects
        ledger.record_creation(now - getattr(connection_record, "last_connect_time", now))

    def invalidate(dbapi_connection: Any, _record: Any, _exception: Any) -> None:
        _reason(dbapi_connection, "invalidated")

    def soft_invalidate(dbapi_connection: Any, _record: Any, _exception: Any) -> None:
        _reason(dbapi_connection, "soft_invalidated")

    def _reason(dbapi_connection: Any, reason: str) -> None:
        connection = find_connection(id(dbapi_connection))
        if connection is not None:
            connection.reason = reason

    def close(dbapi_connection: Any, _record: Any) -> None:
        connection = find_connection(id(dbapi_connection))
        if connection is not None:
            ledger.closed_for(connection, connection.reason or _closer(sys._getframe(1)))  # noqa: SLF001

    def detach(dbapi_connection: Any, _record: Any) -> None:
        connection = find_connection(id(dbapi_connection))
        if connection is None:
            return
        connection.detached = True
        connection.unmark()
        holding = connection.out
        if holding is None:
            return
        proxy = holding[6]()
        if proxy is None:
            # the collector found an async connection: nobody holds it, and SQLAlchemy lets go of it
            connection.out = None
            connection.reason = "collected"
            ledger.lost(holding, monotonic() - holding[1], collected=True)
        else:
            # SQLAlchemy's own weak reference may keep the pool, which has no more to do with the connection
            connection.out = (*holding[:6], ref(proxy), holding[7])

    def close_detached(dbapi_connection: Any) -> None:
        connection = find_connection(id(dbapi_connection))
        if connection is not None:
            ledger.closed_for(connection, connection.reason or "detached")

    return [
        (listener.__name__, _harmless(listener, ledger))
        for listener in (connect, invalidate, soft_invalidate, close, detach, close_detached)
    ]


def _closer(frame: Any) -> str:
    for _ in range(8):
        if frame is None:
            break
        reason = _CLOSERS.get(frame.f_code.co_name)
        if reason is not None:
            return reason
        frame = frame.f_back
    return "other"


def _harmless(listener: Callable[..., None], ledger: Any) -> Callable[..., None]:
    """The listener, counting what goes wrong instead of raising it."""

    def wrapper(*arguments: Any) -> None:
        try:
            listener(*arguments)
        except Exception:  # noqa: BLE001 - the application is not to notice
            ledger.errors += 1

    return wrapper


def adopt_open(watched: WatchedEngine, record: Any) -> None:
    """Follow a connection that was open before anybody looked. When it was checked out, and by whom, is not known."""
    dbapi_connection = record.dbapi_connection
    if dbapi_connection is None or id(dbapi_connection) in watched.ledger.connections:
        return
    connection = watched.adopt(dbapi_connection, record, getattr(record, "last_connect_time", 0) or time.time())
    proxy = getattr(record, "fairy_ref", None)
    if record.in_use and proxy is not None and connection.engine is watched:
        site = watched.ledger.nowhere
        site.checkouts += 1
        connection.out = (next(numbers), monotonic(), UNKNOWN_OWNER, (), False, site, proxy, NOTHING)
