"""Everybody else: people, reports, jobs by the clock, watchers, and a proxy's server connections."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.detection.trace import STEP
from benchmarks.detection.world import DAY, HOUR

if TYPE_CHECKING:
    from benchmarks.detection.world import Connection, Identity, World


def _prune(connections: list[Connection]) -> None:
    connections[:] = [connection for connection in connections if connection.alive]


@dataclass(slots=True, eq=False)
class Watcher:
    """One connection, used every minute."""

    identity: Identity
    address: str
    connection: Connection | None = None

    def step(self, world: World) -> None:
        if self.connection is None or not self.connection.alive:
            self.connection = world.connect(self.identity, self.address, "active")
        else:
            world.touch(self.connection, "active")


@dataclass(slots=True, eq=False)
class Job:
    """Opens connections at a time of the day, or every so often, works, and closes them."""

    identity: Identity
    address: str
    every: int = DAY  # seconds
    offset: int = 0
    workers: int = 1
    lasts: float = 300.0
    idle_between: bool = False  # its connections wait unused for most of the time
    _until: float = 0.0
    _held: list[Connection] = field(default_factory=list)

    def step(self, world: World) -> None:
        _prune(self._held)
        if (world.now - self.offset) % self.every < STEP:
            self._until = world.now + self.lasts * world.random.uniform(0.6, 1.5)
            opened = [world.connect(self.identity, self.address, "active") for _ in range(self.workers)]
            self._held += [connection for connection in opened if connection]
        if world.now >= self._until:
            for connection in self._held:
                world.close(connection)
        elif not self.idle_between:
            for connection in self._held:
                world.touch(connection, "active")


@dataclass(slots=True, eq=False)
class People:
    """Analysts: sessions open at nine, are used now and then, and are forgotten until the evening, or the next day."""

    identity: Identity
    addresses: list[str]
    count: int = 5
    overnight: float = 0.1
    windows: int = 2  # connections for each of them; tools open several
    _held: list[tuple[Connection, float]] = field(default_factory=list)

    def step(self, world: World) -> None:
        random = world.random
        hour, weekday = world.now % DAY / HOUR, (world.now // DAY + 3) % 7
        level = 0.05 if weekday >= 5 else 1.0 if 8.5 <= hour < 17.5 else 0.03
        peak = 3.0 if 8.5 <= hour < 9.75 and weekday < 5 else 0.5
        if len(self._held) < self.count * self.windows and random.random() < self.count * level * peak * STEP / (
            4 * HOUR
        ):
            ends = world.now + random.expovariate(1 / (3 * HOUR))
            if random.random() < self.overnight:
                ends += 16 * HOUR
            connection = world.connect(self.identity, random.choice(self.addresses))
            if connection:
                self._held.append((connection, ends))
        kept = []
        for connection, ends in self._held:
            if not connection.alive:
                continue
            if world.now >= ends:
                world.close(connection)
                continue
            kept.append((connection, ends))
            if random.random() < 0.03:
                world.touch(connection)
        self._held = kept


@dataclass(slots=True, eq=False)
class Proxy:
    """PgBouncer: server connections of many clients behind one address, last in first out, closed when idle long."""

    identity: Identity
    address: str
    mean: float = 10.0
    idle_timeout: float = 600.0
    lifetime: float = 3600.0
    swing: float = 0.6
    _held: list[Connection] = field(default_factory=list)

    def step(self, world: World) -> None:
        _prune(self._held)
        hour = world.now % DAY / HOUR
        level = self.mean * (1 + self.swing * (1 if 9 <= hour < 18 else -1))
        busy, peak = world.number(level), world.number(level + 2 * level**0.5)
        while len(self._held) < max(peak, busy):
            connection = world.connect(self.identity, self.address)
            if connection is None:
                break
            self._held.append(connection)
        for index, connection in enumerate(list(self._held)):
            old = world.now - connection.backend_start > self.lifetime
            unused = world.now - connection.state_change > self.idle_timeout
            if index < busy:
                world.touch(connection, "active")
            elif index < peak:
                world.touch(connection)
            elif old or unused:
                world.close(connection)
        _prune(self._held)


@dataclass(slots=True, eq=False)
class Storm:
    """Now and then a crowd connects at once and stays unused for a while: a retry loop, a cold cache, a load test."""

    identity: Identity
    address: str
    size: int = 30
    per_day: float = 0.5
    lasts: float = 1800.0
    until: float = math.inf
    _held: list[tuple[Connection, float]] = field(default_factory=list)

    def step(self, world: World) -> None:
        if world.now < self.until and world.random.random() < self.per_day * STEP / DAY:
            for _ in range(world.random.randint(self.size // 2, self.size)):
                connection = world.connect(self.identity, self.address)
                if connection:
                    self._held.append((connection, world.now + world.random.expovariate(1 / self.lasts)))
        for connection, ends in self._held:
            if world.now >= ends:
                world.close(connection)
        self._held = [(connection, ends) for connection, ends in self._held if connection.alive]


@dataclass(slots=True, eq=False)
class Schedule:
    """Does something at given times: deploys, failovers, scaling."""

    events: list[tuple[int, object]]

    def step(self, world: World) -> None:
        while self.events and self.events[0][0] <= world.now:
            _, action = self.events.pop(0)
            assert callable(action)
            action(world)
