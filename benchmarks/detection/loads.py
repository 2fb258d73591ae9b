"""Loads that look like leaks and are none, each a recipe for one simulated server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.detection.clients import Job, People, Proxy, Storm
from benchmarks.detection.scene import address_of
from benchmarks.detection.world import DAY, HOUR, Identity

if TYPE_CHECKING:
    from benchmarks.detection.scene import Scene
    from benchmarks.detection.world import World


def steady(scene: Scene) -> None:
    """The same all day."""
    for service in scene.services:
        service.traffic.swing = 0.05


def swing(scene: Scene) -> None:
    """Busy days, quiet nights."""
    for service in scene.services:
        service.traffic.swing, service.burst = scene.random.uniform(0.8, 0.98), 2.0


def weekend(scene: Scene) -> None:
    """Next to nothing on Saturdays and Sundays, and Monday comes back."""
    for service in scene.services:
        service.traffic.weekend = scene.random.uniform(0.01, 0.1)


def deploys(scene: Scene) -> None:
    """A deploy every day or so, and a warm-up after each."""
    for service in scene.services:
        service.traffic.mean *= 0.3
        scene.at(
            *((at, service.deploy) for at in scene.days(scene.random.uniform(8, 18)) if scene.random.random() < 0.8)
        )


def organic(scene: Scene) -> None:
    """Five to ten percent more traffic each week."""
    for service in scene.services:
        service.traffic.growth, service.burst = scene.random.uniform(0.05, 0.1), 1.5


def scale_step(scene: Scene) -> None:
    """Somebody adds processes."""
    service = scene.services[0]
    more = max(int(len(service.processes) * scene.random.uniform(0.3, 0.8)), 1)
    scene.at((scene.somewhen(), lambda _: service.start(more)))


def autoscale(scene: Scene) -> None:
    """Processes come and go with the load."""
    service = scene.services[0]
    most = len(service.processes)

    def scale(world: World) -> None:
        wanted = max(round(most * 1.3 * service.requests / (service.traffic.mean * 60 * 1.8)), 1)
        while len(service.serving) > wanted:
            service.serving[-1].drains_until = world.now
        service.start(max(min(wanted, int(most * 1.4)) - len(service.serving), 0))

    scene.at(*((at, scale) for at in range(scene.world.t0 + 600, scene.end, 600)))


def rolling(scene: Scene) -> None:
    """Rolling deploys: the old processes drain for an hour or more beside the new ones."""
    service = scene.services[0]

    def roll(world: World) -> None:
        old = service.serving
        for process in old:
            process.drains_until = world.now + world.random.randint(600, 3 * HOUR)
        service.addresses = [address_of(world.random) for _ in service.addresses]
        service.start(len(old))

    scene.at(*((at, roll) for at in scene.days(scene.random.uniform(9, 17)) if scene.random.random() < 0.7))


def lifo_tail(scene: Scene) -> None:
    """LIFO pools: a flat tail that nothing touches."""
    for service in scene.services:
        service.lifo, service.recycle, service.burst = True, 0.0, 2.0
        service.traffic.spikes = 2.0


def quiet_night(scene: Scene) -> None:
    """Whole pools without a request from evening to morning."""
    for service in scene.services[:2]:
        service.traffic.office = True


def people(scene: Scene) -> None:
    """Analysts and reports that open at nine and stay idle for hours."""
    for user, name in (("planning", ""), ("excel", ""), ("bi2", "Tableau 2024.1"), ("dwh", "warehouse")):
        addresses = [address_of(scene.random) for _ in range(8)]
        scene.world.agents.append(People(Identity("app", user, name), addresses, scene.random.randint(4, 10), 0.2, 3))


def batch(scene: Scene) -> None:
    """Jobs at night with many workers that mostly wait."""
    for name in ("etl", "invoices"):
        job = Job(Identity("app", name, name), address_of(scene.random), DAY, scene.random.randrange(6) * HOUR)
        job.workers, job.lasts, job.idle_between = scene.random.randint(5, 15), scene.random.uniform(2, 5) * HOUR, True
        scene.world.agents.append(job)


def failover(scene: Scene) -> None:
    """The server is down for some minutes, and everybody comes back at once."""
    for _ in range(scene.random.randint(1, 2)):
        start = scene.somewhen() // 60 * 60
        scene.world.down.update(range(start, start + scene.random.randint(2, 12) * 60, 60))


def storm(scene: Scene) -> None:
    """Retry storms: a crowd connects, is used once, and goes within the hour."""
    service = scene.services[0]
    room = scene.free // 2
    scene.world.agents.append(
        Storm(service.identity, service.addresses[0], max(min(room, 40), 6), scene.random.uniform(0.3, 1.5), 1500)
    )


def tenants(scene: Scene) -> None:
    """A tenant more every few hours, each with a small pool that is in use: growth, and no leak."""
    service = scene.services[0]
    service.traffic.swing, service.size, service.overflow = 0.3, 2, 0
    times = range(scene.world.t0 + DAY, scene.end, int(scene.random.uniform(3, 8) * HOUR))

    def add(_: World) -> None:
        service.start(1)
        scene.growing[:] = [service]
        service.traffic.mean *= 1 + 1 / len(service.processes)

    scene.at(*((at, add) for at in list(times)[: max(scene.free // 3, 1)]))


def proxy(scene: Scene) -> None:
    """PgBouncer in front of most clients."""
    for name in ("pgbouncer", "orders"):
        mean = scene.free * 0.05
        scene.world.agents.append(Proxy(Identity("app", name, name), address_of(scene.random), mean))
