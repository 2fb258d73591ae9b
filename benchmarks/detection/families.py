"""Leaks and loads, each a recipe for one simulated server. The same family and seed give the same trace.

The families named in ``HELD_OUT`` were not looked at while the rules were made, and neither was any seed from
``HELD_OUT_SEED`` on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from benchmarks.detection.clients import Job, People, Proxy, Schedule, Storm, Watcher
from benchmarks.detection.service import Leaking, Service, Traffic
from benchmarks.detection.trace import Leak, Trace, Truth
from benchmarks.detection.world import DAY, HOUR, SUPERUSER_RESERVED, Identity, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.detection.trace import Changes
    from benchmarks.detection.world import Agent

HELD_OUT_SEED = 100
_MONDAY = 1_767_571_200
_NAMES = (
    "shop", "auth", "catalog", "reports", "mailer", "search", "gateway", "billing", "stock", "media", "users", "notify"
)  # fmt: skip


@dataclass(slots=True)
class _Scene:
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
        return self.world.usable - sum(_most(service) for service in self.services) - 8

    def leak(self, service: int = 0, **how: object) -> Leaking:
        leaking = Leaking(self.services[service], **{"start": self.somewhen(), **how})  # type: ignore[arg-type]
        self.leaks.append(leaking)
        return leaking

    def somewhen(self) -> int:
        """A start late enough for the applications to have a past, a day or three into the trace."""
        return self.world.t0 + int(self.random.uniform(1.0, 3.0) * DAY)

    def at(self, *events: tuple[int, Callable[[World], object]]) -> None:
        self.world.agents.append(Schedule(sorted(events, key=lambda event: event[0])))

    def days(self, hour: float) -> Iterator[int]:
        """The same hour of each day, give or take 20 minutes."""
        for day in range(self.world.t0, self.end, DAY):
            yield int(day + hour * HOUR + self.random.uniform(-1200, 1200))


def _most(service: Service) -> int:
    return len(service.processes) * service.size


def _scene(random: Random, days: float, *, share: float = 0.0) -> _Scene:
    """A server with two to four services that take a third to a half of it, and the usual others."""
    t0 = _MONDAY + random.randrange(7) * DAY
    world = World(random.choice((100, 150, 200, 300, 500, 800)), t0, random)
    names = random.sample(_NAMES, 4)
    count = random.randint(2, 4)
    room = world.max_connections * (share or random.uniform(0.3, 0.55))
    services = [
        _service(random, name, room * part) for name, part in zip(names, _parts(random, count), strict=False)
    ]
    world.agents += services
    for user, name in (("monitoring", "pg_exporter"), ("replicator", "walreceiver")):
        world.agents.append(Watcher(Identity("app", user, name), _address(random)))
    world.agents.append(
        Job(Identity("app", "cron", "cron"), _address(random), random.choice((300, 900, 3600)), 0, 1, random.choice((20, 90)))
    )
    offset = random.randrange(4) * HOUR
    world.agents.append(
        Job(Identity("app", "nightly", "nightly"), _address(random), DAY, offset, random.randint(1, 4), random.uniform(1200, 7200),
            idle_between=random.random() < 0.3)
    )  # fmt: skip
    for user, name, likely in (("analyst", "psql", 0.7), ("bi", "Metabase", 0.4), ("planning", "", 0.15)):
        if random.random() < likely:
            addresses = [_address(random) for _ in range(random.randint(1, 6))]
            world.agents.append(People(Identity("app", user, name), addresses, random.randint(2, 6)))
    return _Scene(world, services, [], int(t0 + days * DAY))


def _parts(random: Random, count: int) -> list[float]:
    weights = [random.uniform(0.4, 1.6) for _ in range(count)]
    weights[0] += 0.5
    return [weight / sum(weights) for weight in weights]


def _address(random: Random) -> str:
    return f"10.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(1, 255)}"


def _service(random: Random, name: str, room: float) -> Service:
    size = random.choice((2, 3, 5, 5, 8, 10))
    processes = max(round(room / size), 1)
    seconds = random.choice((0.02, 0.05, 0.1, 0.3))
    used = random.uniform(0.1, 0.7) * size * processes
    hosts = max(processes // random.choice((1, 2, 4, 8)), 1)
    service = Service(
        Identity("app", name, "" if random.random() < 0.05 else name),
        [_address(random) for _ in range(hosts)],
        Traffic(
            used / seconds * random.choice((1.0, 1.0, 0.2, 0.02)),
            swing=random.uniform(0.1, 0.9),
            weekend=random.uniform(0.3, 1.0),
            noise=random.uniform(0.05, 0.3),
            spikes=random.uniform(0.0, 1.0),
            peak_hour=random.uniform(10, 17),
        ),
        size=size,
        overflow=random.choice((0, 2, 5, 10)),
        lifo=random.random() < 0.25,
        recycle=random.choice((0.0, 0.0, 1800.0, 3600.0)),
        seconds=seconds,
        in_transaction=random.uniform(0.0, 0.4),
    )
    service.start(processes)
    return service


# --- leaks ---------------------------------------------------------------------------------------------------------------


def _fill(scene: _Scene, hours: float) -> float:
    """Connections per hour that fill the rest of the server in so many hours."""
    return max(scene.free, 10) / hours


def _usual_hours(random: Random) -> float:
    return random.choice((8, 12, 20, 30, 48)) * random.uniform(0.8, 1.2)


def session_request(scene: _Scene) -> None:
    """Sessions that are not removed, in proportion to the requests: slots of the pools."""
    service = scene.services[0]
    service.overflow = max(service.overflow, scene.free // len(service.processes) + 2)
    rate = _fill(scene, _usual_hours(scene.random))
    scene.leak(per_request=rate / (service.traffic.mean * HOUR), in_transaction=scene.random.random() < 0.7)


def engine_request(scene: _Scene) -> None:
    """A new engine for each request of some kind: idle connections outside of any pool, unbounded."""
    rate = _fill(scene, _usual_hours(scene.random))
    scene.leak(per_request=rate / (scene.services[0].traffic.mean * HOUR), loose=True)


def loop(scene: _Scene) -> None:
    """A background loop loses one at each failed turn."""
    scene.leak(per_hour=_fill(scene, _usual_hours(scene.random)), loose=scene.random.random() < 0.5, in_transaction=True)


def nightly(scene: _Scene) -> None:
    """The error path of a nightly run: some at once, each night."""
    nights = scene.random.choice((3, 4, 5))
    scene.leak(steps=(max(round(scene.free / nights), 4), scene.random.randrange(5)), loose=True)


def daily_deploy(scene: _Scene) -> None:
    """A deploy each day resets the leak, until one day it comes too late."""
    scene.leak(per_hour=_fill(scene, scene.random.uniform(28, 40)), loose=True)
    hour = scene.random.uniform(9, 16)
    service = scene.services[0]
    scene.at(*((at, service.deploy) for at in scene.days(hour) if (at - scene.world.t0) / DAY < scene.random.choice((4, 5, 6))))


def very_slow(scene: _Scene) -> None:
    """One connection in two to six hours."""
    scene.leak(per_hour=1 / scene.random.uniform(2, 6), loose=scene.random.random() < 0.6)


def fast(scene: _Scene) -> None:
    """Full within one to four hours."""
    scene.leak(per_hour=_fill(scene, scene.random.uniform(1.2, 4)), loose=scene.random.random() < 0.7)


def reclaimed(scene: _Scene) -> None:
    """The collector gives some of them back after hours."""
    hours = _usual_hours(scene.random)
    scene.leak(per_hour=1.6 * _fill(scene, hours), reclaimed=1.2 * hours * HOUR, loose=True)


def small_beside_large(scene: _Scene) -> None:
    """A small application leaks beside a large one with a daily swing."""
    scene.services[0].traffic.swing = 0.9
    service = _service(scene.random, "tiny", 4)
    service.traffic.mean = 0.5
    scene.services.append(service)
    scene.world.agents.append(service)
    scene.leak(len(scene.services) - 1, per_hour=_fill(scene, _usual_hours(scene.random)), loose=True)


def after_deploy(scene: _Scene) -> None:
    """A release brings the leak."""
    leak = scene.leak(per_hour=_fill(scene, _usual_hours(scene.random)), loose=scene.random.random() < 0.5)
    scene.at((leak.start - 60, scene.services[0].deploy))


def dead_peers(scene: _Scene) -> None:
    """Hosts vanish without a word, and the server keeps their connections."""
    service = scene.services[0]

    def crash(world: World) -> None:
        process = world.random.choice(service.serving)
        service.stop(world, process, orphans=True)
        service.start(1)

    per_crash = max(service.size // 2, 1)
    hours = _usual_hours(scene.random) * 1.5
    start, count = scene.somewhen(), int(scene.free / per_crash) + 5
    times = [int(start + hours * HOUR * index / (scene.free / per_crash)) for index in range(count)]
    scene.leak(start=start)
    scene.at(*((at, crash) for at in times))


def keepalive(scene: _Scene) -> None:
    """Something pings what leaked: it never looks unused."""
    rate = max(_fill(scene, _usual_hours(scene.random) * 1.5), 1.0)
    scene.leak(per_hour=rate, loose=True, keepalive=scene.random.choice((30, 60, 240)))


def keepalive_slow(scene: _Scene) -> None:
    """Pinged, and slower than one per hour."""
    scene.leak(per_hour=scene.random.uniform(0.3, 0.9), loose=True, keepalive=60)


def office_hours(scene: _Scene) -> None:
    """Leaks while people work."""
    scene.leak(per_hour=_fill(scene, scene.random.uniform(15, 30)), office=True, loose=scene.random.random() < 0.5,
               in_transaction=True)  # fmt: skip


def two_at_once(scene: _Scene) -> None:
    """Two applications leak."""
    for index in range(2):
        scene.leak(index, per_hour=_fill(scene, _usual_hours(scene.random)) / 2, loose=scene.random.random() < 0.5)


def bursts(scene: _Scene) -> None:
    """Irregular: nothing for long, then several."""
    scene.leak(per_hour=_fill(scene, _usual_hours(scene.random)), bursts=scene.random.choice((0.01, 0.03)), loose=True)


def one_address(scene: _Scene) -> None:
    """All clients behind one address."""
    address = _address(scene.random)
    for service in scene.services:
        for process in service.processes:
            process.address = address
        service.addresses[:] = [address]
    session_request(scene)


def second_leak(scene: _Scene) -> None:
    """A first leak was repaired two or three days ago; its record still stands."""
    first = scene.leak(per_hour=_fill(scene, 40), loose=True)
    first.end = first.start + scene.random.randint(8, 16) * HOUR
    scene.at((first.end + HOUR, scene.services[0].deploy))
    scene.leak(start=first.end + int(scene.random.uniform(1, 3) * DAY), per_hour=_fill(scene, 30), loose=True)


def beneath_swings(scene: _Scene) -> None:
    """The application's suspects swing widely before anything leaks."""
    service = scene.services[0]
    service.lifo, service.traffic.swing, service.overflow = True, 0.95, 0
    service.size += 3
    identity = service.identity
    scene.world.agents.append(Storm(identity, service.addresses[0], 12, 3.0, 7200))
    scene.leak(per_hour=_fill(scene, _usual_hours(scene.random)), loose=True)


# --- loads ---------------------------------------------------------------------------------------------------------------


def steady(scene: _Scene) -> None:
    """The same all day."""
    for service in scene.services:
        service.traffic.swing = 0.05


def swing(scene: _Scene) -> None:
    """Busy days, quiet nights."""
    for service in scene.services:
        service.traffic.swing, service.burst = scene.random.uniform(0.8, 0.98), 2.0


def weekend(scene: _Scene) -> None:
    """Next to nothing on Saturdays and Sundays, and Monday comes back."""
    for service in scene.services:
        service.traffic.weekend = scene.random.uniform(0.01, 0.1)


def deploys(scene: _Scene) -> None:
    """A deploy every day or so, and a warm-up after each."""
    for service in scene.services:
        service.traffic.mean *= 0.3
        scene.at(*((at, service.deploy) for at in scene.days(scene.random.uniform(8, 18)) if scene.random.random() < 0.8))


def organic(scene: _Scene) -> None:
    """Five to ten percent more traffic each week."""
    for service in scene.services:
        service.traffic.growth, service.burst = scene.random.uniform(0.05, 0.1), 1.5


def scale_step(scene: _Scene) -> None:
    """Somebody adds processes."""
    service = scene.services[0]
    more = max(int(len(service.processes) * scene.random.uniform(0.3, 0.8)), 1)
    scene.at((scene.somewhen(), lambda _: service.start(more)))


def autoscale(scene: _Scene) -> None:
    """Processes come and go with the load."""
    service = scene.services[0]
    most = len(service.processes)

    def scale(world: World) -> None:
        wanted = max(round(most * 1.3 * service.requests / (service.traffic.mean * 60 * 1.8)), 1)
        while len(service.serving) > wanted:
            service.serving[-1].drains_until = world.now
        service.start(max(min(wanted, int(most * 1.4)) - len(service.serving), 0))

    scene.at(*((at, scale) for at in range(scene.world.t0 + 600, scene.end, 600)))


def rolling(scene: _Scene) -> None:
    """Rolling deploys: the old processes drain for an hour or more beside the new ones."""
    service = scene.services[0]

    def roll(world: World) -> None:
        old = service.serving
        for process in old:
            process.drains_until = world.now + world.random.randint(600, 3 * HOUR)
        service.addresses = [_address(world.random) for _ in service.addresses]
        service.start(len(old))

    scene.at(*((at, roll) for at in scene.days(scene.random.uniform(9, 17)) if scene.random.random() < 0.7))


def lifo_tail(scene: _Scene) -> None:
    """LIFO pools: a flat tail that nothing touches."""
    for service in scene.services:
        service.lifo, service.recycle, service.burst = True, 0.0, 2.0
        service.traffic.spikes = 2.0


def quiet_night(scene: _Scene) -> None:
    """Whole pools without a request from evening to morning."""
    for service in scene.services[:2]:
        service.traffic.office = True


def people(scene: _Scene) -> None:
    """Analysts and reports that open at nine and stay idle for hours."""
    for user, name in (("planning", ""), ("excel", ""), ("bi2", "Tableau 2024.1"), ("dwh", "warehouse")):
        addresses = [_address(scene.random) for _ in range(8)]
        scene.world.agents.append(People(Identity("app", user, name), addresses, scene.random.randint(4, 10), 0.2, 3))


def batch(scene: _Scene) -> None:
    """Jobs at night with many workers that mostly wait."""
    for name in ("etl", "invoices"):
        job = Job(Identity("app", name, name), _address(scene.random), DAY, scene.random.randrange(6) * HOUR)
        job.workers, job.lasts, job.idle_between = scene.random.randint(5, 15), scene.random.uniform(2, 5) * HOUR, True
        scene.world.agents.append(job)


def failover(scene: _Scene) -> None:
    """The server is down for some minutes, and everybody comes back at once."""
    for _ in range(scene.random.randint(1, 2)):
        start = scene.somewhen() // 60 * 60
        scene.world.down.update(range(start, start + scene.random.randint(2, 12) * 60, 60))


def storm(scene: _Scene) -> None:
    """Retry storms: a crowd connects, is used once, and goes within the hour."""
    service = scene.services[0]
    room = scene.free // 2
    scene.world.agents.append(
        Storm(service.identity, service.addresses[0], max(min(room, 40), 6), scene.random.uniform(0.3, 1.5), 1500)
    )


def tenants(scene: _Scene) -> None:
    """A tenant more every few hours, each with a small pool that is in use: growth, and no leak."""
    service = scene.services[0]
    service.traffic.swing, service.size, service.overflow = 0.3, 2, 0
    times = range(scene.world.t0 + DAY, scene.end, int(scene.random.uniform(3, 8) * HOUR))

    def add(_: World) -> None:
        service.start(1)
        scene.growing[:] = [service]
        service.traffic.mean *= 1 + 1 / len(service.processes)

    scene.at(*((at, add) for at in list(times)[: max(scene.free // 3, 1)]))


def proxy(scene: _Scene) -> None:
    """PgBouncer in front of most clients."""
    for name in ("pgbouncer", "orders"):
        mean = scene.world.max_connections * 0.06
        scene.world.agents.append(Proxy(Identity("app", name, name), _address(scene.random), mean))


LEAKS: dict[str, tuple[Callable[[_Scene], None], float]] = {
    "session_request": (session_request, 5), "engine_request": (engine_request, 5), "loop": (loop, 5),
    "nightly": (nightly, 8), "daily_deploy": (daily_deploy, 9), "very_slow": (very_slow, 14), "fast": (fast, 4),
    "reclaimed": (reclaimed, 7), "small_beside_large": (small_beside_large, 5), "after_deploy": (after_deploy, 5),
    "dead_peers": (dead_peers, 6), "keepalive": (keepalive, 7), "keepalive_slow": (keepalive_slow, 14),
    "office_hours": (office_hours, 8), "two_at_once": (two_at_once, 5), "bursts": (bursts, 5),
    "one_address": (one_address, 5), "second_leak": (second_leak, 9), "beneath_swings": (beneath_swings, 5),
}  # fmt: skip
"""Family -> recipe and days."""

LOADS: dict[str, tuple[Callable[[_Scene], None], float]] = {
    "steady": (steady, 7), "swing": (swing, 9), "weekend": (weekend, 10), "deploys": (deploys, 9),
    "organic": (organic, 12), "scale_step": (scale_step, 7), "autoscale": (autoscale, 9), "rolling": (rolling, 9),
    "lifo_tail": (lifo_tail, 9), "quiet_night": (quiet_night, 9), "people": (people, 9), "batch": (batch, 9),
    "failover": (failover, 7), "storm": (storm, 9), "tenants": (tenants, 9), "proxy": (proxy, 9),
}  # fmt: skip

HELD_OUT = ("after_deploy", "bursts", "dead_peers", "second_leak", "autoscale", "batch", "proxy", "storm")


def simulate(family: str, seed: int) -> Trace:
    """Run one simulated server to its end; the changes are kept, to be gone through more than once."""
    recipe, days = {**LEAKS, **LOADS}[family]
    random = Random(f"{family}-{seed}")
    scene = _scene(random, days)
    recipe(scene)
    world = scene.world
    agents: list[Agent] = [*world.agents, *scene.leaks]
    world.agents = agents
    t0 = world.t0
    changes: list[Changes] = list(world.live(scene.end))
    names = sorted({(o.usename, o.application_name) for change in changes for o in change.opened})
    truth = Truth(
        family=family,
        seed=seed,
        t0=t0,
        t_end=changes[-1].t,
        max_connections=world.max_connections,
        superuser_reserved=SUPERUSER_RESERVED,
        applications=tuple(names),
        leaks=tuple(
            Leak(
                leaking.service.identity.usename,
                leaking.service.identity.application_name,
                leaking.first or leaking.start,
                leaking.starved_at,
                tuple(leaking.history),
            )
            for leaking in scene.leaks
        ),
        exhausted_at=world.exhausted_at,
        down=frozenset(world.down),
        growing=frozenset((s.identity.usename, s.identity.application_name) for s in scene.growing),
    )
    return Trace(truth, lambda: iter(changes))
