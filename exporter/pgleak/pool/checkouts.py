"""The wrappers around a pool's `connect`, which every checkout goes through, and `_return_conn`, which every return does.

SQLAlchemy has an event for a checkout, but none for waiting and for a timeout, so that the first is needed anyway; doing
the checkout's part there saves the event's own cost and most of the walk up the stack. The second stands where `checkin` is
dispatched; where a SQLAlchemy has no such method, or another one, the event does (`events`).

After a wait for the server all of this is gone from the processor's caches, so that what counts is how much is touched: no
frame more than without pgleak, and no table where an attribute does.
"""

from __future__ import annotations

import sys
from asyncio import _get_running_loop as running_loop
from itertools import count
from time import monotonic, time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy.engine import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import Pool, SingletonThreadPool
from sqlalchemy.pool.base import _ConnectionFairy

from pgleak.pool import owner as owners
from pgleak.pool.connection import MARK, unmark
from pgleak.pool.ledger import LEDGER, WatchedEngine, numbers
from pgleak.pool.marks import MARKS
from pgleak.pool.methods import as_function, code_of, does_only
from pgleak.pool.origin import LIBRARY, capture, classify
from pgleak.pool.sites import BRIEF

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from pgleak.pool.connection import Connection
    from pgleak.pool.ledger import PoolLedger
    from pgleak.pool.origin import Stack
    from pgleak.pool.owner import TaskOwner, ThreadOwner
    from pgleak.pool.sites import Site

# id of a pool that carries its ledger -> the pool; and what takes the entry away when the pool dies
_marked: dict[int, ref[Pool]] = {}
_changes = count(1)
_changed = 0  # what the last change of what is watched was numbered
_wrapped: dict[tuple[type[Pool], str], tuple[Any, Any]] = {}  # ours, and what stood there before
_RETURN = "_return_conn"  # since 1.0; not public
_CONNECT = "def connect(self):\n    ''\n    return _ConnectionFairy._checkout(self)"
_RETURN_CONN = "def _return_conn(self, record):\n    ''\n    self._do_return_conn(record)"
_INSIDE = range(4)  # frames that a pool of the application's may have
_on_first_connect: list[Callable[[], None]] = []


def install() -> None:
    """Wrap the methods in the pool classes that have them of their own. Idempotent."""
    for kind, name, wrapper in (
        (Pool, "connect", _connecting),
        (SingletonThreadPool, "connect", _connecting),
        (Pool, _RETURN, _returning),
    ):
        original = kind.__dict__.get(name)
        _, before = _wrapped.get((kind, name), (None, None))
        # known already, and there or beneath somebody else's; unless that one has put back what stood there before ours
        if original is not None and (before is None or original is before):
            ours = wrapper(original)
            if ours is None:
                continue
            _wrapped[kind, name] = ours, original
            ours.__doc__ = original.__doc__
            ours.__wrapped__ = original
            setattr(kind, name, ours)


def uninstall() -> None:
    """Put the original methods back. Where somebody else wrapped ours meanwhile, ours stays beneath and does nothing."""
    for (kind, name), (ours, original) in list(_wrapped.items()):
        if kind.__dict__.get(name) is ours:
            setattr(kind, name, original)
            del _wrapped[kind, name]
    forget()


def sees_returns(kind: type[Pool]) -> bool:
    """Whether the wrapper sees connections come back to such a pool, so that no listener has to."""
    ours, _ = _wrapped.get((Pool, _RETURN), (None, None))
    return ours is not None and getattr(kind, _RETURN) is getattr(Pool, _RETURN)


def forget() -> None:
    """Look every pool up anew: after a change of what is watched, and after a fork."""
    global _changed  # noqa: PLW0603 - before anything is forgotten, so that who remembers after that sees it
    _changed = next(_changes)
    for key, reference in list(_marked.items()):
        _marked.pop(key, None)  # these and no others: another thread may be marking one more
        pool = reference()
        if pool is not None:
            unmark(pool)


def on_first_connect(callback: Callable[[], None]) -> None:
    """Called when a watched pool is first asked for a connection, in each process."""
    _on_first_connect.append(callback)


def _connecting(original: Any) -> Any:
    frame_at = sys._getframe  # noqa: SLF001 - documented; inspect.currentframe() is the same with a detour
    current_marks = MARKS.get
    here, tasks = owners.Here, owners.TASKS
    engine_connect, raw_connection = code_of(Engine.connect), code_of(Engine.raw_connection)
    # SQLAlchemy's method does nothing but make this call: made here, there is no call more than without pgleak
    fairy: Any = _ConnectionFairy if does_only(original, _CONNECT) else SimpleNamespace(_checkout=as_function(original))

    def connect(self: Any) -> Any:
        try:
            try:
                ledger = self.pgleak
            except AttributeError:
                ledger = _look_up(self)
            started = monotonic()
        except Exception:  # noqa: BLE001 - raised here it would cost the application the connection, as below
            LEDGER.errors += 1
            ledger, started = None, 0.0
        if ledger is None:
            return fairy._checkout(self)  # noqa: SLF001
        ledger.pending += 1
        try:
            proxy = fairy._checkout(self)  # noqa: SLF001
        except BaseException as error:
            _failed(ledger, started, error)
            raise
        ledger.pending -= 1
        try:
            record = proxy._connection_record  # noqa: SLF001
            try:
                connection = record.pgleak
                # Engine.connect stands two frames further out than raw_connection, where that is called by it; what is
                # outside of them wants the connection. The frames in between are not even made objects.
                first = frame_at(3)
                if first.f_code is engine_connect or (first := frame_at(1)).f_code is raw_connection:
                    first = first.f_back or first
                else:
                    first = _outside(first, raw_connection)
                site = ledger.direct.get(id(code := first.f_code))
                second: Any = first.f_back
                third = second and second.f_back
                fourth = third and third.f_back
                fifth = fourth and fourth.f_back
                session = False
                if site is None or second is None or (tasks and fifth is None):  # or a coroutine is further out
                    stack, session = capture(first)
                    site = ledger.sites[id(stack[0])]
                elif fifth is not None:  # what `capture` does, written out: a loop costs twice, and a call is one more
                    stack = (
                        code, first.f_lasti, second.f_code, second.f_lasti, third.f_code, third.f_lasti,
                        fourth.f_code, fourth.f_lasti, fifth.f_code, fifth.f_lasti,
                    )  # fmt: skip
                elif fourth is not None:
                    stack = (
                        code, first.f_lasti, second.f_code, second.f_lasti, third.f_code, third.f_lasti,
                        fourth.f_code, fourth.f_lasti,
                    )  # fmt: skip
                elif third is not None:
                    stack = code, first.f_lasti, second.f_code, second.f_lasti, third.f_code, third.f_lasti
                else:
                    stack = code, first.f_lasti, second.f_code, second.f_lasti
                owner = owners.current_owner() if tasks and running_loop() is not None else here.storage.owner
            except (LookupError, AttributeError, ValueError):  # seen for the first time, or there is no call site
                known = _first_time(self, ledger, proxy, _outside(frame_at(1), raw_connection))
                if known is None:
                    return proxy
                connection, stack, session, site, owner = known
            now = monotonic()
            if connection.out is not None and not connection.share(proxy):
                return proxy
            given = record.fairy_ref  # the weak reference that is there anyway
            connection.out = (next(numbers), now, owner, stack, session, site, given, current_marks())
            site.checkouts += 1
            connection.used_at = now
            ledger.waited += now - started
        except Exception:  # noqa: BLE001 - raised here it would cost the application the connection
            LEDGER.errors += 1
        return proxy

    return connect


def _outside(frame: FrameType, raw_connection: CodeType | None) -> FrameType:
    """Past a pool of the application's own, which only hands on what somebody further out wants; else the frame itself."""
    inside: FrameType | None = frame
    for _ in _INSIDE:
        if inside is None:
            break
        if inside.f_code is raw_connection:
            return inside.f_back or inside
        if classify(inside) == LIBRARY:
            break
        inside = inside.f_back
    return frame


def _first_time(
    pool: Pool, ledger: PoolLedger, proxy: Any, frame: FrameType
) -> tuple[Connection, Stack, bool, Site, ThreadOwner | TaskOwner] | None:
    """What a checkout is made of, where not all of it is known from earlier ones; None where nobody watches any more."""
    record = proxy._connection_record  # noqa: SLF001
    connection = getattr(record, MARK, None) or ledger.connections.get(id(proxy.dbapi_connection))
    if connection is None:
        watched = _engine_of(pool)
        if watched is None:
            return None
        connection = watched.adopt_checked_out(proxy)
    else:
        connection.mark(record)
    stack, session = capture(frame)
    site = ledger.nowhere
    if stack:
        code = stack[0]
        assert not isinstance(code, int)
        site = ledger.sites.get(id(code)) or ledger.site(code)
    owner = owners.current_owner()
    if connection.inherited:
        connection.misuse = (next(numbers), monotonic(), owner, stack, session, site, record.fairy_ref, MARKS.get())
    return connection, stack, session, site, owner


def _returning(original: Any) -> Any:
    if not does_only(original, _RETURN_CONN):
        return None  # the event has to do

    def return_conn(self: Any, record: Any) -> Any:
        try:
            if self.pgleak is not None:
                connection = record.pgleak
                holding = connection.out
                if holding is not None:
                    used = monotonic() - holding[1]
                    if used > BRIEF or holding[6]() is None or connection.shared:
                        connection.returned()
                    else:
                        connection.out = None
                        connection.last = holding[3]
                        site = holding[5]
                        site.counts[0] += 1
                        site.seconds += used
        except AttributeError:
            _unexpected(self, record)
        except Exception:  # noqa: BLE001 - raised here it would cost the pool the slot, for ever
            LEDGER.errors += 1
        self._do_return_conn(record)

    return return_conn


def _unexpected(pool: Pool, record: Any) -> None:
    """A return to a pool that nobody has asked for a connection since it is watched, or of an unknown connection."""
    try:
        watched = _engine_of(pool)
        dbapi_connection = record.dbapi_connection
        if watched is None or dbapi_connection is None:
            return
        connection = watched.ledger.connections.get(id(dbapi_connection))
        if connection is not None:
            connection.returned()
        else:
            watched.adopt(dbapi_connection, record, time())
    except Exception:  # noqa: BLE001 - as in the wrapper
        LEDGER.errors += 1


def _failed(ledger: PoolLedger, started: float, error: BaseException) -> None:
    ledger.pending -= 1
    try:
        if isinstance(error, PoolTimeoutError):
            ledger.timeouts += 1
        elapsed = monotonic() - started  # first: the addition must not read before a call
        ledger.waited += elapsed
    except Exception:  # noqa: BLE001 - the application gets its own exception, not ours
        ledger.errors += 1


def _look_up(pool: Pool) -> PoolLedger | None:
    """The ledger of a pool, None where it is not watched; remembered from now on. Never raises."""
    try:
        owners.adapt()
        key, known = id(pool), _changed
        watched = _engine_of(pool)
        ledger = watched.ledger if watched is not None else None

        def forget_pool(_: object) -> None:
            try:
                _marked.pop(key, None)
            except Exception:  # noqa: BLE001 - nothing of ours may surface in whatever the collector interrupted
                LEDGER.errors += 1

        _marked[key] = ref(pool, forget_pool)
        setattr(pool, MARK, ledger)
        if _changed != known:  # another thread's instrument() meanwhile: what was looked up is of before
            unmark(pool)
        if ledger is not None:
            for callback in _on_first_connect:
                callback()
    except Exception:  # noqa: BLE001 - the application gets its connection whatever happens here
        LEDGER.errors += 1
        return None
    return ledger


def _engine_of(pool: Pool) -> WatchedEngine | None:
    """The engine that the pool's listeners watch; they follow it from pool to pool."""
    for listener in pool.dispatch.close:
        watched = getattr(listener, "pgleak", None)
        if isinstance(watched, WatchedEngine):
            return watched
    return None
