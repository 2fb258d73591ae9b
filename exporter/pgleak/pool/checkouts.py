"""The wrapper on `Pool.connect`, which every checkout goes through: who waits, how long and in vain, and who gets what.

SQLAlchemy has an event for a checkout, but none for waiting and for a timeout, so that the wrapper is needed anyway; doing
the checkout's part there as well saves the event's own cost and most of the walk up the stack.
"""

from __future__ import annotations

import sys
from asyncio import _get_running_loop as running_loop
from time import monotonic
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
_original: dict[type[Pool], Any] = {}
_on_first_connect: list[Callable[[], None]] = []


def install() -> None:
    """Wrap `connect` of the pool classes that have one of their own. Idempotent."""
    for kind in (Pool, SingletonThreadPool):
        if kind not in _original:
            _original[kind] = kind.__dict__["connect"]
            setattr(kind, "connect", _wrapper(kind.__dict__["connect"]))  # noqa: B010 - mypy takes no assignment to a method


def uninstall() -> None:
    """Put the original methods back. Where somebody else wrapped ours meanwhile, ours stays beneath and does nothing."""
    for kind, original in list(_original.items()):
        if getattr(kind.__dict__.get("connect"), "pgleak", False):
            setattr(kind, "connect", original)  # noqa: B010
            del _original[kind]
    forget()


def forget() -> None:
    """Look every pool up anew: after a change of what is watched, and after a fork."""
    _deaths.clear()
    _watched.clear()


def on_first_connect(callback: Callable[[], None]) -> None:
    """Called when a watched pool is first asked for a connection, in each process."""
    _on_first_connect.append(callback)


def _wrapper(original: Callable[[Pool], Any]) -> Callable[[Pool], Any]:
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
            connection.out = (next_number(), now, owner, stack, session, site, ref(proxy), current_marks())
            site.checkouts += 1
            connection.uses += 1
            ledger.waited += now - started
        except Exception:  # noqa: BLE001 - raised here it would cost the application the connection
            ledger.errors += 1
        return proxy

    connect.__doc__ = original.__doc__
    connect.__wrapped__ = original  # type: ignore[attr-defined]
    connect.pgleak = True  # type: ignore[attr-defined]
    return connect


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
    """The ledger that the pool's listeners write to. They follow an engine from pool to pool; never raises."""
    try:
        key = id(pool)
        watched = None
        for listener in pool.dispatch.checkin:
            found = getattr(listener, "pgleak", None)
            if isinstance(found, WatchedEngine):
                watched = found
                break

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
