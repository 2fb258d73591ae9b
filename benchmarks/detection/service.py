"""Services with worker processes, each with a pool of connections, as QueuePool keeps one; and what leaks from them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.detection.trace import STEP
from benchmarks.detection.world import DAY, HOUR

if TYPE_CHECKING:
    from random import Random

    from benchmarks.detection.world import Connection, Identity, World


@dataclass(slots=True)
class Traffic:
    """Requests per second over the week: a daily swing, quieter weekends, noise with memory, spikes."""

    mean: float
    swing: float = 0.5  # 0 flat, 1 nothing at night
    weekend: float = 0.7  # share of a weekday's traffic
    noise: float = 0.1
    spikes: float = 0.2  # per day
    growth: float = 0.0  # per week, as a share
    peak_hour: float = 14.0
    office: bool = False  # nothing outside of office hours
    _wander: float = 0.0
    _spike_until: float = 0.0
    _spike: float = 1.0

    def at(self, t: int, t0: int, random: Random) -> float:
        hour, weekday = t % DAY / HOUR, (t // DAY + 3) % 7
        quiet = weekday >= 5
        level = 1 + self.swing * math.cos((hour - self.peak_hour) * math.pi / 12)
        if self.office and (quiet or not 8 <= hour < 18.5):
            level = 0.0
        self._wander = 0.98 * self._wander + random.gauss(0, 0.2 * self.noise)
        if t > self._spike_until and random.random() < self.spikes * STEP / DAY:
            self._spike_until, self._spike = t + random.uniform(120, 1800), random.uniform(1.5, 3.0)
        spike = self._spike if t <= self._spike_until else 1.0
        growth = (1 + self.growth) ** ((t - t0) / (7 * DAY))
        requests = self.mean * level * (self.weekend if quiet else 1.0) * (1 + self._wander) * spike * growth
        return max(float(requests), 0.0)


@dataclass(slots=True, eq=False)
class Process:
    """One worker process and its pool. ``idle`` has the connection that was returned last at its right end."""

    address: str
    idle: deque[Connection] = field(default_factory=deque)
    busy: list[Connection] = field(default_factory=list)
    lost: list[Connection] = field(default_factory=list)  # slots of the pool that leaked away
    loose: list[Connection] = field(default_factory=list)  # leaked outside of the pool
    drains_until: int = 0  # takes no new requests and is gone then; 0 while it serves
    stopped: bool = False


@dataclass(slots=True, eq=False)
class Service:
    """Worker processes behind one name."""

    identity: Identity
    addresses: list[str]
    traffic: Traffic
    processes: list[Process] = field(default_factory=list)
    size: int = 5
    overflow: int = 10
    lifo: bool = False
    recycle: float = 0.0  # seconds; 0 never
    seconds: float = 0.05  # a request holds a connection for so long
    fixed: bool = False  # a process opens all of its pool at once and keeps it open
    burst: float = 1.0  # how far the peak within a minute stands above what Poisson says
    in_transaction: float = 0.2  # share of busy connections that wait for the client
    orphans: list[Connection] = field(default_factory=list)  # of processes that died without a word
    requests: float = 0.0  # of this minute

    def start(self, processes: int) -> None:
        for _ in range(processes):
            self.processes.append(Process(self.addresses[len(self.processes) % len(self.addresses)]))

    @property
    def serving(self) -> list[Process]:
        return [process for process in self.processes if not process.drains_until]

    @property
    def leaked(self) -> list[Connection]:
        """What is in no pool's hands any more."""
        return [*self.orphans, *(c for process in self.processes for c in (*process.lost, *process.loose))]

    def step(self, world: World) -> None:
        self.requests = self.traffic.at(world.now, world.t0, world.random) * STEP
        serving = len(self.serving)
        for process in self.processes:
            for held in (process.idle, process.busy, process.lost, process.loose):
                if not all(connection.alive for connection in held):  # closed by the server
                    alive = [connection for connection in held if connection.alive]
                    held.clear()
                    held.extend(alive)
            if process.drains_until and world.now >= process.drains_until:
                self.stop(world, process)
            else:
                self._serve(world, process, 0.0 if process.drains_until else self.requests / serving)
        self.processes = [process for process in self.processes if not process.stopped]
        self.orphans = [connection for connection in self.orphans if connection.alive]

    def stop(self, world: World, process: Process, *, orphans: bool = False) -> None:
        """End a process, and with it its connections; unless nobody tells the server (a lost host): then they stay."""
        for connection in (*process.idle, *process.busy, *process.lost, *process.loose):
            if orphans:
                self.orphans.append(connection)
            else:
                world.close(connection)
        process.stopped = True

    def deploy(self, world: World) -> None:
        """Replace all processes at once."""
        count = len(self.processes)
        for process in self.processes:
            self.stop(world, process)
        self.processes = []
        self.start(count)

    def leak(self, world: World, *, loose: bool, in_transaction: bool) -> bool:
        """Take one connection out of circulation for ever; False when no pool has one left, or the server refuses."""
        candidates = self.serving
        world.random.shuffle(candidates)
        for process in candidates:
            if loose:
                connection = world.connect(self.identity, process.address)
            elif len(process.lost) >= self.size + self.overflow:
                continue
            else:
                connection = process.idle.pop() if process.idle else world.connect(self.identity, process.address)
            if connection is None:
                return False
            if in_transaction or not loose:
                world.touch(connection, "idle in transaction" if in_transaction else "idle")
            (process.loose if loose else process.lost).append(connection)
            return True
        return False

    def _serve(self, world: World, process: Process, requests: float) -> None:
        idle, busy = process.idle, process.busy
        for connection in busy:
            world.touch(connection)
        idle.extend(busy)
        busy.clear()
        while self.fixed and len(idle) + len(process.lost) < self.size:
            opened = world.connect(self.identity, process.address)
            if opened is None:
                break
            idle.append(opened)
        count = world.number(requests)
        if not count:
            return
        mean = requests * self.seconds / STEP
        capacity = max(self.size + self.overflow - len(process.lost), 0)
        now_busy = min(world.number(mean), capacity)
        peak = min(max(now_busy, world.number(mean * self.burst + 1.5 * mean**0.5), 1), capacity)
        while len(idle) < peak:
            opened = world.connect(self.identity, process.address)
            if opened is None:
                break
            idle.append(opened)
        take = idle.pop if self.lifo else idle.popleft
        used = [take() for _ in range(min(peak if self.lifo else count, len(idle)))]
        for connection in reversed(used) if self.lifo else used:
            fresh: Connection | None = connection
            if self.recycle and world.now - connection.backend_start > self.recycle:
                world.close(connection)
                fresh = world.connect(self.identity, process.address)
            if fresh:
                world.touch(fresh)
                idle.append(fresh)
        for _ in range(min(now_busy, len(idle))):
            connection = take()
            waits = world.random.random() < self.in_transaction
            world.touch(connection, "idle in transaction" if waits else "active", world.now - world.random.random() / 2)
            busy.append(connection)
        while idle and len(idle) + len(busy) + len(process.lost) > self.size:
            world.close(idle.pop())


@dataclass(slots=True, eq=False)
class Leaking:
    """A defect: it takes connections of a service out of circulation."""

    service: Service
    start: int
    per_hour: float = 0.0
    per_request: float = 0.0
    steps: tuple[int, int] = (0, 0)  # so many at once, at this hour of each day
    bursts: float = 0.0  # share of minutes that leak; the others are quiet
    loose: bool = False
    in_transaction: bool = False
    keepalive: float = 0.0  # something touches what leaked, every so many seconds
    reclaimed: float = 0.0  # the collector finds a leaked one after so many seconds on average
    office: bool = False
    end: int = 0
    first: int | None = None
    starved_at: int | None = None
    history: list[int] = field(default_factory=list)  # leaked and open, every 30 minutes

    def step(self, world: World) -> None:
        now = world.now
        if (now - world.t0) % 1800 == 0:
            self.history.append(len(self.service.leaked))
        if now >= self.start and (not self.end or now < self.end):
            for _ in range(self._count(world)):
                if self.service.leak(world, loose=self.loose, in_transaction=self.in_transaction):
                    self.first = self.first or now
                elif not self.loose and world.exhausted_at is None:
                    self.starved_at = self.starved_at or now
        for connection in self.service.leaked if self.reclaimed or self.keepalive else ():
            if self.reclaimed and world.random.random() < STEP / self.reclaimed:
                world.close(connection)
            elif self.keepalive and connection.alive and now - connection.state_change >= self.keepalive:
                world.touch(connection)

    def _count(self, world: World) -> int:
        hour, weekday = world.now % DAY / HOUR, (world.now // DAY + 3) % 7
        if self.steps[0]:
            return self.steps[0] if world.now % DAY // STEP == self.steps[1] * 60 else 0
        if self.office and (weekday >= 5 or not 8 <= hour < 18):
            return 0
        mean = self.per_hour / 60 + self.per_request * self.service.requests
        if self.bursts:
            mean = mean / self.bursts if world.random.random() < self.bursts else 0.0
        return world.number(mean)
