"""What the ledger holds now, and what the garbage collector took out of it unseen."""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy.pool import NullPool

from pgleak.pool.ledger import LEDGER
from pgleak.pool.lines import resolve
from pgleak.pool.marks import expected_now
from pgleak.pool.owner import UNKNOWN_OWNER, TaskOwner, ThreadOwner
from pgleak.pool.survey import holding_of, place_of
from pgleak.testing.leftovers import Leftover

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from pgleak.pool.connection import Connection, Holding
    from pgleak.pool.ledger import WatchedEngine
    from pgleak.pool.snapshot import Place


class Sessions:
    """Which ORM session stands behind a checkout. Session tells when it begins, with its connection."""

    def __init__(self) -> None:
        self._by_number: dict[int, ref[Session]] = {}
        self._keys: dict[int, int] = {}

    def after_begin(self, session: Session, _transaction: object, connection: Any) -> None:
        try:
            key = id(connection.connection.dbapi_connection)
            for pool in LEDGER.pools.copy().values():
                known = pool.connections.get(key)
                holding = known.out if known is not None else None
                if holding is not None and holding[4] and holding[0] not in self._by_number:
                    self._by_number[holding[0]] = ref(session)
                    self._keys[holding[0]] = session.hash_key
        except Exception:  # noqa: BLE001 - the application's transaction is not to suffer
            LEDGER.errors += 1

    def key(self, number: int) -> int | None:
        """Sessions have numbers in the order in which they were made."""
        return self._keys.get(number)

    def unsaved(self, number: int) -> str:
        """What the session has that no commit has seen, by class; never the values."""
        known = self._by_number.get(number)
        session = known() if known is not None else None
        if session is None:
            return ""
        parts = []
        for what, instances in (("new", session.new), ("changed", session.dirty), ("deleted", session.deleted)):
            names = [type(instance).__name__ for instance in instances]
            parts += [f"{names.count(name)} {what} {name}" for name in sorted(set(names))]
        return ", ".join(parts)

    def keep_only(self, numbers: set[int]) -> None:
        for number in set(self._keys) - numbers:
            self._keys.pop(number, None)
            self._by_number.pop(number, None)


class Collected:
    """Notes what was let go without a word. Called by the garbage collector, so that it only appends."""

    def __init__(self) -> None:
        self._lost: list[tuple[str, Holding]] = []
        self._closed: list[tuple[str, WatchedEngine]] = []

    def lost(self, pool: str, holding: Holding) -> None:
        self._lost.append((pool, holding))

    def collected(self, pool: str, connection: Connection) -> None:
        engine = connection.engine.engine()
        if connection.engine.made and (engine is None or place_of(connection) == "pool"):
            self._closed.append((pool, connection.engine))

    def take(self) -> tuple[Leftover, ...]:
        """Everything since the last time."""
        lost, self._lost = self._lost, []
        closed, self._closed = self._closed, []
        engines = {id(engine): (pool, engine) for pool, engine in closed if not is_in_memory(engine)}
        counts = {key: sum(id(engine) == key for _, engine in closed) for key in engines}
        return (
            *(_checkout(pool, holding, "pool", is_collected=True) for pool, holding in lost),
            *(_engine(pool, engine, counts[key], is_collected=True) for key, (pool, engine) in engines.items()),
        )


def checked_out() -> Iterator[tuple[str, Connection, Holding]]:
    """The name of the pool, the connection, and who holds it, as far as that was seen and is not known to take long."""
    for pool in LEDGER.pools.copy().values():
        for connection in pool.connections.copy().values():
            holding = holding_of(connection)
            if holding is None or connection.inherited or holding[2] is UNKNOWN_OWNER:
                continue
            if holding[6]() is not None:  # else a driver without weak references has kept its death to itself
                yield pool.name, connection, holding


def is_expected(holding: Holding, age: float) -> bool:
    """Taken in an `expected_hold` block that is not over its time, by somebody who lives."""
    expected = holding[7].expected or expected_now(holding[2].key())
    return expected is not None and holding[2].alive and age <= expected.max_seconds


def is_at_work(holding: Holding) -> bool:
    """Whether another thread has this and may be about to give it back."""
    owner = holding[2]
    return isinstance(owner, ThreadOwner) and owner.alive and not _is_mine(owner)


def leftover_of(pool: str, connection: Connection, holding: Holding, sessions: Sessions) -> Leftover:
    """A checkout in plain data."""
    unsaved = "" if is_at_work(holding) else sessions.unsaved(holding[0])
    return _checkout(pool, holding, place_of(connection), unsaved=unsaved)


def open_engines() -> Iterator[Leftover]:
    """Engines that keep connections open, and were watched from the moment they were made."""
    for pool in LEDGER.pools.copy().values():
        connections = list(pool.connections.copy().values())
        for watched in pool.engines.copy().values():
            engine = watched.engine()
            if not watched.made or engine is None or isinstance(engine.pool, NullPool) or is_in_memory(watched):
                continue
            own = [each for each in connections if each.engine is watched and place_of(each) == "pool"]
            if own:
                yield _engine(pool.name, watched, len(own), is_async=engine.dialect.is_async)


def is_in_memory(watched: WatchedEngine) -> bool:
    """An SQLite database in memory is nothing but its connection: disposing of the engine would be losing the data."""
    if not watched.server.startswith("sqlite"):
        return False
    engine = watched.engine()
    mode = engine.url.query.get("mode") if engine is not None else None
    return watched.server.endswith(("/", ":")) or ":memory:" in watched.server or mode == "memory"


def _checkout(pool: str, holding: Holding, place: Place, *, unsaved: str = "", is_collected: bool = False) -> Leftover:
    number, _, owner, stack, is_session, _, _, _ = holding
    description, standing = owner.describe(monotonic())
    return Leftover(
        kind="session" if is_session else "connection",
        number=number,
        pool=pool,
        frames=resolve(stack),
        place=place,
        owner=description,
        standing=() if _is_mine(owner) else standing,
        is_mine=_is_mine(owner),
        is_async=isinstance(owner, TaskOwner),
        unsaved=unsaved,
        collected=is_collected,
    )


def _is_mine(owner: object) -> bool:
    return isinstance(owner, ThreadOwner) and owner.alive and owner.ident == threading.get_ident()


def _engine(
    pool: str, watched: WatchedEngine, connections: int, *, is_async: bool = False, is_collected: bool = False
) -> Leftover:
    return Leftover(
        kind="engine",
        number=watched.number,
        pool=pool,
        frames=resolve(watched.made),
        connections=connections,
        is_async=is_async,
        collected=is_collected,
    )
