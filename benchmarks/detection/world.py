"""One simulated server: who is connected, and what the last minute changed. Agents open, touch and close."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from benchmarks.detection.trace import STEP, Changed, Changes, Opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

DAY = 86400
HOUR = 3600
SUPERUSER_RESERVED = 3


class Identity(NamedTuple):
    """What the server knows of an application."""

    datname: str
    usename: str
    application_name: str


@dataclass(slots=True, eq=False)
class Connection:
    """One backend; Unix seconds, 0 for no transaction."""

    pid: int
    identity: Identity
    address: str
    state: str
    backend_start: float
    xact_start: float
    state_change: float
    alive: bool = True


class Agent(Protocol):
    """Something that holds connections."""

    def step(self, world: World) -> None:
        """Live through the minute that ends at ``world.now``."""


class World:
    """The server and its agents; everything random comes from one seeded source."""

    def __init__(self, max_connections: int, t0: int, random: Random) -> None:
        self.max_connections = max_connections
        self.t0 = self.now = t0
        self.random = random
        self.agents: list[Agent] = []
        self.exhausted_at: int | None = None
        self.down: set[int] = set()
        self._pid = 300
        self._open: dict[int, Connection] = {}
        self._opened: dict[int, Connection] = {}
        self._touched: dict[int, Connection] = {}
        self._closed: list[int] = []

    @property
    def usable(self) -> int:
        return self.max_connections - SUPERUSER_RESERVED

    @property
    def is_down(self) -> bool:
        return self.now in self.down

    def connect(self, identity: Identity, address: str, state: str = "idle") -> Connection | None:
        """Open a connection some time in this minute; None when the server refuses."""
        if len(self._open) >= self.usable:
            self.exhausted_at = self.exhausted_at or self.now
            return None
        self._pid += 1
        at = self.moment()
        connection = Connection(self._pid, identity, address, state, at, 0.0 if state == "idle" else at, at)
        self._open[self._pid] = self._opened[self._pid] = connection
        return connection

    def touch(self, connection: Connection, state: str = "idle", at: float | None = None) -> None:
        """Use a connection and leave it in ``state``; in a transaction unless that is idle."""
        connection.state = state
        connection.state_change = max(self.moment() if at is None else at, connection.backend_start)
        connection.xact_start = 0.0 if state == "idle" else connection.state_change
        self._touched[connection.pid] = connection

    def close(self, connection: Connection) -> None:
        if not connection.alive:
            return
        connection.alive = False
        del self._open[connection.pid]
        self._touched.pop(connection.pid, None)
        if self._opened.pop(connection.pid, None) is None:
            self._closed.append(connection.pid)

    def close_all(self) -> None:
        """What a restart of the server does."""
        for connection in list(self._open.values()):
            self.close(connection)

    def moment(self) -> float:
        """Some time within this minute."""
        return self.now - self.random.random() * STEP

    def number(self, mean: float) -> int:
        """A Poisson number; the normal approximation where the mean is large."""
        if mean <= 0:
            return 0
        if mean > 30:
            return max(round(self.random.gauss(mean, mean**0.5)), 0)
        left, count = self.random.expovariate(1.0), 0
        while left < mean:
            left += self.random.expovariate(1.0)
            count += 1
        return count

    def live(self, end: int) -> Iterator[Changes]:
        """Run to ``end``, or until two hours after the server first refused somebody."""
        while self.now <= end and (self.exhausted_at is None or self.now <= self.exhausted_at + 2 * HOUR):
            if self.is_down:
                self.close_all()
            else:
                for agent in self.agents:
                    agent.step(self)
            yield self._flush()
            self.now += STEP

    def _flush(self) -> Changes:
        changes = Changes(
            self.now,
            self._closed,
            [
                Opened(c.pid, *c.identity, c.address, c.state, c.backend_start, c.xact_start, c.state_change)
                for c in self._opened.values()
            ],
            [
                Changed(c.pid, c.state, c.xact_start, c.state_change)
                for c in self._touched.values()
                if c.pid not in self._opened
            ],
        )
        self._closed, self._opened, self._touched = [], {}, {}
        return changes
