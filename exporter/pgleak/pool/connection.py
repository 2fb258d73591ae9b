"""One connection to the server, and who holds it."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry, Pool

    from pgleak.pool.ledger import WatchedEngine
    from pgleak.pool.marks import Marks
    from pgleak.pool.origin import Stack
    from pgleak.pool.owner import TaskOwner, ThreadOwner, UnknownOwner
    from pgleak.pool.sites import Site

    #: number, monotonic start, owner, stack, through an ORM session?, site, the proxy handed out, marks
    Holding: TypeAlias = tuple[int, float, TaskOwner | ThreadOwner | UnknownOwner, Stack, bool, Site, ref[Any], Marks]

#: What a pool carries, None where it is not watched, and what its records do. Gone where nobody watches.
MARK = "pgleak"


def unmark(marked: object) -> None:
    """Take the mark from a pool or a record again."""
    with suppress(AttributeError):
        delattr(marked, MARK)


class Connection:
    """One connection to the server, from connect to close, whatever pool record it is in."""

    __slots__ = (
        "__weakref__", "detached", "driver", "engine", "inherited", "key", "last", "misuse", "opened", "out", "pid", "pool", "reason",
        "record", "server", "shared", "used_at",
    )  # fmt: skip

    def __init__(self, key: int, engine: WatchedEngine, opened: float) -> None:
        self.key = key
        self.engine = engine
        self.opened = opened
        self.pool: ref[Pool] | None = None
        self.driver: ref[Any] | None = None
        self.pid: int | None = None
        self.server = ""
        self.out: Holding | None = None
        self.shared: tuple[Holding, ...] = ()  # a StaticPool hands the same connection out many times
        self.last: Stack = ()  # of the checkout that was returned last
        self.detached = False
        self.inherited = 0  # the process that opened it, where that was not this one
        self.misuse: Holding | None = None  # the first checkout of one that was inherited
        self.reason = ""
        self.used_at = monotonic()  # when it was checked out last
        self.record: ref[ConnectionPoolEntry] | None = None

    def mark(self, record: Any) -> None:
        """Let the pool's record lead here: found at once at each checkout and return."""
        setattr(record, MARK, self)
        self.record = ref(record)

    def unmark(self) -> None:
        record = self.record() if self.record is not None else None
        if record is not None and getattr(record, MARK, None) is self:
            unmark(record)

    def share(self, proxy: object) -> bool:
        """Handed out while it is out. False when that is the same holder once more, as SingletonThreadPool has it."""
        holding = self.out
        if holding is None:
            return True
        if holding[6]() is proxy:
            return False
        self.shared = (*(each for each in self.shared if each[6]() is not None), holding)
        return True

    def returned(self) -> None:
        """Back in its pool; by the collector where the proxy that was handed out is gone."""
        holding = self.out
        if holding is None:
            return
        self.out = None
        self.last = holding[3]
        if self.shared:
            self.shared += (holding,)
        used = monotonic() - holding[1]
        if holding[6]() is None:
            self.engine.ledger.lost(holding, used, collected=True)
        else:
            holding[5].record(used)
