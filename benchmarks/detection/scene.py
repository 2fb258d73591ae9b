"""A server to play on: services that take a third to a half of it, and the usual others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.detection.clients import Job, People, Schedule, Storm, Watcher
from benchmarks.detection.service import Leaking, Service, Traffic
from benchmarks.detection.world import DAY, HOUR, Identity, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

_MONDAY = 1_767_571_200
_NAMES = (
    "shop", "auth", "catalog", "reports", "mailer", "search", "gateway", "billing", "stock", "media", "users", "notify"
)  # fmt: skip


@dataclass(slots=True)
class Scene:
    world: World
    services: list[Service]
    leaks: list[Leaking]
    end: int
    growing: list[Service] = field(default_factory=list)

    @property
    def random(self) -> Random:
        return self.world.random

    @property
    def free(self) -> int:
        """Roughly what the services leave, at their largest."""
        return self.world.usable - sum(most(service) for service in self.services) - 8

    def leak(self, service: int = 0, **how: object) -> Leaking:
        """Plan a leak. Pools that leak can mostly grow until the server is full; the others starve first."""
        if not how.get("loose") and self.random.random() < 0.8:
            pool = self.services[service]
            pool.overflow = max(pool.overflow, self.free // len(pool.processes) + 2)
        leaking = Leaking(self.services[service], **{"start": self.somewhen(), **how})  # type: ignore[arg-type]
        self.leaks.append(leaking)
        return leaking

    def somewhen(self) -> int:
        """A start late enough for the applications to have a past, a day or three into the trace."""
        return self.world.t0 + int(self.random.uniform(1.0, 3.0) * DAY)

    def leave_room(self) -> None:
        """A load that is to count as healthy does not fill its server: pools overflow into half of what is free."""
        possible = sum(len(service.processes) * service.overflow for service in self.services)
        for service in self.services:
            service.overflow = min(service.overflow, int(service.overflow * max(self.free, 0) / (2 * possible or 1)))

    def everyday(self) -> None:
        """What happens anywhere: a deploy now and then, a storm of retries; to what leaks only before it does."""
        random = self.random
        for service in self.services:
            until = min((leak.start - 6 * HOUR for leak in self.leaks if leak.service is service), default=self.end)
            if random.random() < 0.3:
                times = [int(random.uniform(self.world.t0 + HOUR, self.end)) for _ in range(random.randint(1, 4))]
                self.at(*((at, service.deploy) for at in times if at < until))
            if random.random() < 0.15:
                size = max(int(random.uniform(0.1, 0.5) * most(service)), 3)
                lasts = random.choice((300, 1200, 3600))
                storm = Storm(service.identity, service.addresses[0], size, random.uniform(0.1, 0.5), lasts, until)
                self.world.agents.append(storm)

    def at(self, *events: tuple[int, Callable[[World], object]]) -> None:
        self.world.agents.append(Schedule(sorted(events, key=lambda event: event[0])))

    def days(self, hour: float) -> Iterator[int]:
        """The same hour of each day, give or take 20 minutes."""
        for day in range(self.world.t0, self.end, DAY):
            yield int(day + hour * HOUR + self.random.uniform(-1200, 1200))


def most(service: Service) -> int:
    return len(service.processes) * service.size


def scene_of(random: Random, days: float, *, share: float = 0.0) -> Scene:
    """A server with two to four services that take a third to a half of it, and the usual others."""
    t0 = _MONDAY + random.randrange(7) * DAY
    world = World(random.choice((100, 150, 200, 300, 500, 800)), t0, random)
    names = random.sample(_NAMES, 4)
    count = random.randint(2, 4)
    room = world.max_connections * (share or random.uniform(0.3, 0.55))
    services = [service_of(random, name, room * part) for name, part in zip(names, _parts(random, count), strict=False)]
    world.agents += services
    for user, name in (("monitoring", "pg_exporter"), ("replicator", "walreceiver")):
        world.agents.append(Watcher(Identity("app", user, name), address_of(random)))
    world.agents.append(
        Job(
            Identity("app", "cron", "cron"),
            address_of(random),
            random.choice((300, 900, 3600)),
            0,
            1,
            random.choice((20, 90)),
        )
    )
    offset = random.randrange(4) * HOUR
    world.agents.append(
        Job(Identity("app", "nightly", "nightly"), address_of(random), DAY, offset, random.randint(1, 4), random.uniform(1200, 7200),
            idle_between=random.random() < 0.3)
    )  # fmt: skip
    for user, name, likely in (("analyst", "psql", 0.7), ("bi", "Metabase", 0.4), ("planning", "", 0.15)):
        if random.random() < likely:
            addresses = [address_of(random) for _ in range(random.randint(1, 6))]
            world.agents.append(People(Identity("app", user, name), addresses, random.randint(2, 6)))
    return Scene(world, services, [], int(t0 + days * DAY))


def _parts(random: Random, count: int) -> list[float]:
    weights = [random.uniform(0.4, 1.6) for _ in range(count)]
    weights[0] += 0.5
    return [weight / sum(weights) for weight in weights]


def address_of(random: Random) -> str:
    return f"10.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(1, 255)}"


def service_of(random: Random, name: str, room: float) -> Service:
    size = random.choice((2, 3, 5, 5, 8, 10))
    processes = max(round(room / size), 1)
    seconds = random.choice((0.02, 0.05, 0.1, 0.3))
    used = random.uniform(0.1, 0.7) * size * processes
    hosts = max(processes // random.choice((1, 2, 4, 8)), 1)
    service = Service(
        Identity("app", name, "" if random.random() < 0.05 else name),
        [address_of(random) for _ in range(hosts)],
        Traffic(
            used / seconds * random.choice((1.0, 1.0, 0.2, 0.02)),
            swing=random.uniform(0.1, 0.9),
            weekend=random.uniform(0.1, 1.0),
            noise=random.uniform(0.05, 0.3),
            spikes=random.uniform(0.0, 1.0),
            peak_hour=random.uniform(10, 17),
        ),
        size=size,
        overflow=random.choice((0, 2, 5, 10)),
        lifo=random.random() < 0.4,
        recycle=random.choice((0.0, 0.0, 1800.0, 3600.0)),
        seconds=seconds,
        fixed=random.random() < 0.25,
        burst=random.choice((1.0, 1.0, 1.5, 2.5)),
        in_transaction=random.uniform(0.0, 0.4),
    )
    service.traffic.office = random.random() < 0.1
    service.start(processes)
    return service
