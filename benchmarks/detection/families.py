"""The families of traces. The same family and seed give the same trace.

The families in ``HELD_OUT`` were not looked at while the rules were made, nor was any seed from ``HELD_OUT_SEED`` on.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from benchmarks.detection import leaks, loads
from benchmarks.detection.scene import scene_of
from benchmarks.detection.trace import Leak, Trace, Truth
from benchmarks.detection.world import SUPERUSER_RESERVED

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.detection.scene import Scene
    from benchmarks.detection.trace import Changes
    from benchmarks.detection.world import Agent

HELD_OUT_SEED = 100

LEAKS: dict[str, tuple[Callable[[Scene], None], float]] = {
    "session_request": (leaks.session_request, 5), "engine_request": (leaks.engine_request, 5), "loop": (leaks.loop, 5),
    "nightly": (leaks.nightly, 8), "daily_deploy": (leaks.daily_deploy, 9), "very_slow": (leaks.very_slow, 14), "fast": (leaks.fast, 4),
    "reclaimed": (leaks.reclaimed, 7), "small_beside_large": (leaks.small_beside_large, 5), "after_deploy": (leaks.after_deploy, 5),
    "dead_peers": (leaks.dead_peers, 6), "keepalive": (leaks.keepalive, 7), "keepalive_slow": (leaks.keepalive_slow, 14),
    "office_hours": (leaks.office_hours, 8), "two_at_once": (leaks.two_at_once, 5), "bursts": (leaks.bursts, 5),
    "one_address": (leaks.one_address, 5), "second_leak": (leaks.second_leak, 9), "beneath_swings": (leaks.beneath_swings, 5),
}  # fmt: skip
"""Family -> recipe and days."""

LOADS: dict[str, tuple[Callable[[Scene], None], float]] = {
    "steady": (loads.steady, 7), "swing": (loads.swing, 9), "weekend": (loads.weekend, 10), "deploys": (loads.deploys, 9),
    "organic": (loads.organic, 12), "scale_step": (loads.scale_step, 7), "autoscale": (loads.autoscale, 9), "rolling": (loads.rolling, 9),
    "lifo_tail": (loads.lifo_tail, 9), "quiet_night": (loads.quiet_night, 9), "people": (loads.people, 9), "batch": (loads.batch, 9),
    "failover": (loads.failover, 7), "storm": (loads.storm, 9), "tenants": (loads.tenants, 9), "proxy": (loads.proxy, 9),
}  # fmt: skip

HELD_OUT = ("dead_peers", "second_leak", "autoscale", "batch", "proxy")


def simulate(family: str, seed: int) -> Trace:
    """Run one simulated server to its end; the changes are kept, to be gone through more than once."""
    recipe, days = {**LEAKS, **LOADS}[family]
    random = Random(f"{family}-{seed}")
    scene = scene_of(random, days)
    recipe(scene)
    if not scene.leaks:
        scene.leave_room()
    scene.everyday()
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
