"""The wrappers around a pool's `connect`, which every checkout goes through, and `_return_conn`, which every return does.

SQLAlchemy has an event for a checkout, but none for waiting and for a timeout, so that the first is needed anyway; doing
the checkout's part there saves the event's own cost and most of the walk up the stack. The second stands where `checkin` is
dispatched and saves a tenth of what watching costs; where a SQLAlchemy has no such method, the event does (`events`).
"""

from __future__ import annotations

import sys
from asyncio import _get_running_loop as running_loop
from time import monotonic, time
from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import Pool, SingletonThreadPool

from pgleak.pool import owner as owners
from pgleak.pool.ledger import LEDGER, WatchedEngine, numbers
from pgleak.pool.marks import MARKS
from pgleak.pool.origin import capture

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgleak.pool.ledger import PoolLedger

# id of a pool -> its engine, None for a pool that is not watched; and what takes the entry away when the pool dies
_watched: dict[int, WatchedEngine | None] = {}
_deaths: dict[int, ref[Pool]] = {}
_absent: Any = object()
_original: dict[tuple[type[Pool], str], Any] = {}
_RETURN = "_return_conn"  # since 1.0; not public
_on_first_connect: list[Callable[[], None]] = []


def install() -> None:
    """Wrap the methods in the pool classes that have them of their own. Idempotent."""
    for kind, name, wrapper in (
        (Pool, "connect", _connecting),
        (SingletonThreadPool, "connect", _connecting),
        (Pool, _RETURN, _returning),
    ):
        original = kind.__dict__.get(name)
        if original is not None and (kind, name) not in _original:
            _original[kind, name] = original
            wrapped = wrapper(original)
            wrapped.__doc__ = original.__doc__
            wrapped.__wrapped__ = original
            wrapped.pgleak = True
            setattr(kind, name, wrapped)


def uninstall() -> None:
    """Put the original methods back. Where somebody else wrapped ours meanwhile, ours stays beneath and does nothing."""
    for (kind, name), original in list(_original.items()):
        if getattr(kind.__dict__.get(name), "pgleak", False):
            setattr(kind, name, original)
            del _original[kind, name]
    forget()


def sees_returns() -> bool:
    """Whether the wrapper sees connections come back, so that no listener has to."""
    return (Pool, _RETURN) in _original


def forget() -> None:
    """Look every pool up anew: after a change of what is watched, and after a fork."""
    _deaths.clear()
    _watched.clear()


def on_first_connect(callback: Callable[[], None]) -> None:
    """Called when a watched pool is first asked for a connection, in each process."""
    _on_first_connect.append(callback)


def _connecting(original: Any) -> Any:
    find_watched = _watched.get
    frame_at = sys._getframe  # noqa: SLF001 - documented; inspect.currentframe() is the same with a detour
    current_marks = MARKS.get
    here = owners.storage()
    next_number = numbers.__next__

    def connect(self: Pool) -> Any:
        started = 0.0
        try:
            watched = find_watched(id(self), _absent)
            if watched is _absent:
                watched = _look_up(self)
            if watched is not None:
                started = monotonic()
        except Exception:  # noqa: BLE001 - raised here it would cost the application the connection, as below
            LEDGER.errors += 1
            watched = None
        if watched is None:
            return original(self)
        ledger = watched.ledger
        ledger.pending += 1
        try:
            proxy = original(self)
        except BaseException as error:
            _failed(ledger, started, error)
            raise
        ledger.pending -= 1
        try:
            connection = ledger.connections.get(id(proxy.dbapi_connection))
            if connection is None:
                connection = watched.adopt_checked_out(proxy)
            stack, session = capture(frame_at(1))
            if stack:
                site = ledger.sites.get(id(stack[0]))
                if site is None:
                    site = ledger.site(stack[0])
            else:
                site = ledger.nowhere
            if running_loop() is None:
                try:
                    owner = here.owner
                except AttributeError:
                    owner = owners.current_owner()
            else:
                owner = owners.current_owner()
            now = monotonic()
            if connection.out is not None and not connection.share(proxy):
                return proxy
            given = proxy._connection_record.fairy_ref  # noqa: SLF001 - the weak reference that is there anyway
            connection.out = (next_number(), now, owner, stack, session, site, given, current_marks())
            site.checkouts += 1
            connection.uses += 1
            ledger.waited += now - started
        except Exception:  # noqa: BLE001 - raised here it would cost the application the connection
            ledger.errors += 1
        return proxy

    return connect


def _returning(original: Any) -> Any:
    find_watched = _watched.get

    def return_conn(self: Pool, record: Any) -> Any:
        try:
            watched = find_watched(id(self), _absent)
            if watched is _absent:
                watched = _engine_of(self)
            if watched is not None:
                dbapi_connection = record.dbapi_connection
                connection = watched.ledger.connections.get(id(dbapi_connection))
                if connection is not None:
                    connection.returned()
                elif dbapi_connection is not None:
                    watched.adopt(dbapi_connection, record, time())
        except Exception:  # noqa: BLE001 - raised here it would cost the pool the slot, for ever
            LEDGER.errors += 1
        return original(self, record)

    return return_conn


def _failed(ledger: PoolLedger, started: float, error: BaseException) -> None:
    ledger.pending -= 1
    try:
        if isinstance(error, PoolTimeoutError):
            ledger.timeouts += 1
        elapsed = monotonic() - started  # first: the addition must not read before a call
        ledger.waited += elapsed
    except Exception:  # noqa: BLE001 - the application gets its own exception, not ours
        ledger.errors += 1


def _look_up(pool: Pool) -> WatchedEngine | None:
    """Whose pool this is, remembered from now on; never raises."""
    try:
        key = id(pool)
        watched = _engine_of(pool)

        def forget_pool(_: object) -> None:
            try:
                _watched.pop(key, None)
                _deaths.pop(key, None)
            except Exception:  # noqa: BLE001 - nothing of ours may surface in whatever the collector interrupted
                LEDGER.errors += 1

        _deaths[key] = ref(pool, forget_pool)
        _watched[key] = watched
        if watched is not None:
            for callback in _on_first_connect:
                callback()
    except Exception:  # noqa: BLE001 - the application gets its connection whatever happens here
        LEDGER.errors += 1
        return None
    return watched


def _engine_of(pool: Pool) -> WatchedEngine | None:
    """The engine that the pool's listeners watch; they follow it from pool to pool."""
    for listener in pool.dispatch.close:
        watched = getattr(listener, "pgleak", None)
        if isinstance(watched, WatchedEngine):
            return watched
    return None
