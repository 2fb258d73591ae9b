"""Leaks, each a recipe for one simulated server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.detection.clients import Storm
from benchmarks.detection.scene import address_of, service_of
from benchmarks.detection.world import DAY, HOUR

if TYPE_CHECKING:
    from random import Random

    from benchmarks.detection.scene import Scene
    from benchmarks.detection.world import World


def _fill(scene: Scene, hours: float) -> float:
    """Connections per hour that fill the rest of the server in so many hours."""
    return max(scene.free, 10) / hours


def _usual_hours(random: Random) -> float:
    """Half of the leaks take more than a day, as in the study that this follows."""
    return random.choice((8, 15, 24, 36, 60)) * random.uniform(0.8, 1.2)


def session_request(scene: Scene) -> None:
    """Sessions that are not removed, in proportion to the requests: slots of the pools."""
    rate = _fill(scene, _usual_hours(scene.random))
    scene.leak(per_request=rate / (scene.services[0].traffic.mean * HOUR), in_transaction=scene.random.random() < 0.7)


def engine_request(scene: Scene) -> None:
    """A new engine for each request of some kind: idle connections outside of any pool, unbounded."""
    rate = _fill(scene, _usual_hours(scene.random))
    scene.leak(per_request=rate / (scene.services[0].traffic.mean * HOUR), loose=True)


def loop(scene: Scene) -> None:
    """A background loop loses one at each failed turn."""
    scene.leak(
        per_hour=_fill(scene, _usual_hours(scene.random)), loose=scene.random.random() < 0.5, in_transaction=True
    )


def nightly(scene: Scene) -> None:
    """The error path of a nightly run: some at once, each night."""
    nights = scene.random.choice((3, 4, 5))
    scene.leak(steps=(max(round(scene.free / nights), 4), scene.random.randrange(5)), loose=True)


def daily_deploy(scene: Scene) -> None:
    """A deploy each day resets the leak, until one day it comes too late."""
    scene.leak(per_hour=_fill(scene, scene.random.uniform(28, 40)), loose=True)
    hour = scene.random.uniform(9, 16)
    service = scene.services[0]
    scene.at(
        *(
            (at, service.deploy)
            for at in scene.days(hour)
            if (at - scene.world.t0) / DAY < scene.random.choice((4, 5, 6))
        )
    )


def very_slow(scene: Scene) -> None:
    """One connection in two to six hours."""
    scene.leak(per_hour=1 / scene.random.uniform(2, 6), loose=scene.random.random() < 0.6)


def fast(scene: Scene) -> None:
    """Full within one to four hours."""
    scene.leak(per_hour=_fill(scene, scene.random.uniform(1.2, 4)), loose=scene.random.random() < 0.7)


def reclaimed(scene: Scene) -> None:
    """The collector gives some of them back after hours."""
    hours = _usual_hours(scene.random)
    scene.leak(per_hour=1.6 * _fill(scene, hours), reclaimed=1.2 * hours * HOUR, loose=True)


def small_beside_large(scene: Scene) -> None:
    """A small application leaks beside a large one with a daily swing."""
    scene.services[0].traffic.swing = 0.9
    service = service_of(scene.random, "tiny", 4)
    service.traffic.mean = 0.5
    scene.services.append(service)
    scene.world.agents.append(service)
    scene.leak(len(scene.services) - 1, per_hour=_fill(scene, _usual_hours(scene.random)), loose=True)


def after_deploy(scene: Scene) -> None:
    """A release brings the leak."""
    leak = scene.leak(per_hour=_fill(scene, _usual_hours(scene.random)), loose=scene.random.random() < 0.5)
    scene.at((leak.start - 60, scene.services[0].deploy))


def dead_peers(scene: Scene) -> None:
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


def keepalive(scene: Scene) -> None:
    """Something pings what leaked: it never looks unused."""
    rate = max(_fill(scene, _usual_hours(scene.random) * 1.5), 1.0)
    scene.leak(per_hour=rate, loose=True, keepalive=scene.random.choice((30, 60, 240)))


def keepalive_slow(scene: Scene) -> None:
    """Pinged, and slower than one per hour."""
    scene.leak(per_hour=scene.random.uniform(0.3, 0.9), loose=True, keepalive=60)


def office_hours(scene: Scene) -> None:
    """Leaks while people work."""
    scene.leak(per_hour=_fill(scene, scene.random.uniform(15, 30)), office=True, loose=scene.random.random() < 0.5,
               in_transaction=True)  # fmt: skip


def two_at_once(scene: Scene) -> None:
    """Two applications leak."""
    for index in range(2):
        scene.leak(index, per_hour=_fill(scene, _usual_hours(scene.random)) / 2, loose=scene.random.random() < 0.5)


def bursts(scene: Scene) -> None:
    """Irregular: nothing for long, then several."""
    scene.leak(per_hour=_fill(scene, _usual_hours(scene.random)), bursts=scene.random.choice((0.01, 0.03)), loose=True)


def one_address(scene: Scene) -> None:
    """All clients behind one address."""
    address = address_of(scene.random)
    for service in scene.services:
        for process in service.processes:
            process.address = address
        service.addresses[:] = [address]
    session_request(scene)


def second_leak(scene: Scene) -> None:
    """A first leak was repaired two or three days ago; its record still stands."""
    first = scene.leak(per_hour=_fill(scene, 40), loose=True)
    first.end = first.start + scene.random.randint(8, 16) * HOUR
    scene.at((first.end + HOUR, scene.services[0].deploy))
    scene.leak(start=first.end + int(scene.random.uniform(1, 3) * DAY), per_hour=_fill(scene, 30), loose=True)


def beneath_swings(scene: Scene) -> None:
    """The application's suspects swing widely before anything leaks."""
    service = scene.services[0]
    service.lifo, service.traffic.swing, service.overflow = True, 0.95, 0
    service.size += 3
    identity = service.identity
    scene.world.agents.append(Storm(identity, service.addresses[0], 12, 3.0, 7200))
    scene.leak(per_hour=_fill(scene, _usual_hours(scene.random)), loose=True)
