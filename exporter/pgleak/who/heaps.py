"""Which pools belong to which application on which server, and the engines that pile up in them. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from pgleak.pool.suspects import PILE, piled_in
from pgleak.who.connection import Quiet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgleak.pool.reading import Reading as Folder
    from pgleak.pool.reading import Reported
    from pgleak.pool.snapshot import EngineSite, Frame, PoolSnapshot, ProcessIdentity
    from pgleak.who.connection import Connection

    #: server, user, application
    Key: TypeAlias = tuple[str, str, str]
    Owned: TypeAlias = tuple[Reported, PoolSnapshot]


@dataclass(frozen=True, slots=True)
class Heap:
    """Engines that one place makes over and over, and since when their connections stand open."""

    pool: str
    made: EngineSite
    ages: tuple[float, ...]  # of the connections, the oldest first
    unseen: float  # how old they were when they could first be told to be leaked

    @property
    def since(self) -> float:
        return max(self.ages, default=0.0)

    def plus(self, other: Heap) -> Heap:
        """Both together, of one place in two processes."""
        engines, unused = self.made.engines + other.made.engines, self.made.unused + other.made.unused
        ages = tuple(sorted((*self.ages, *other.ages), reverse=True))
        return Heap(self.pool, replace(self.made, engines=engines, unused=unused), ages, max(self.unseen, other.unseen))


def owned_pools(
    groups: Mapping[Key, Sequence[Connection]], names: Mapping[Key, str], folder: Folder | None
) -> dict[Key, list[Owned]]:
    """Which pools belong to which application: where most of a pool's connections are, or else wherever its name is."""
    homes: dict[tuple[ProcessIdentity, str], Counter[Key]] = {}
    for key, group in groups.items():
        pools = group.pools if type(group) is Quiet else Counter([(each.process, each.pool) for each in group])
        for (process, pool_name), count in pools.items():
            if process is not None:
                homes.setdefault((process, pool_name), Counter())[key] += count
    owned: dict[Key, list[Owned]] = {key: [] for key in groups}
    for reported in folder.processes if folder else ():
        for pool in reported.snapshot.pools:
            home = homes.get((reported.snapshot.process, pool.name))
            if home:
                owned[home.most_common(1)[0][0]].append((reported, pool))
                continue
            for key, name in names.items():
                if name == pool.application_name:
                    owned[key].append((reported, pool))
    return owned


def heaps(owned: Iterable[Owned], connections: Sequence[Connection], at: float) -> tuple[Heap, ...]:
    """The engines that pile up in these pools, in all processes; never more than have one of these connections; `at` in Unix time."""
    piles = [(reported.snapshot, pool, made) for reported, pool in owned for made in piled_in(pool)]
    counts = Counter((each.process, each.pool) for each in connections) if piles else {}
    found: dict[tuple[str, tuple[Frame, ...]], Heap] = {}
    for snapshot, pool, made in piles:
        limit = snapshot.limits.unproven_site
        unused = min(made.unused, counts[snapshot.process, pool.name])
        heap = Heap(pool.name, replace(made, unused=unused), _unused(pool, unused, at, limit), limit)
        before = found.get((pool.name, made.frames[:1]))
        found[pool.name, made.frames[:1]] = heap if before is None else before.plus(heap)
    return tuple(heap for heap in found.values() if heap.made.unused >= PILE)


def _unused(pool: PoolSnapshot, unused: int, at: float, limit: float) -> tuple[float, ...]:
    """The likely ages of a pile: the youngest of the age to be judged, as engines that are in use are rather older."""
    ages = sorted(age for backend in pool.idle if (age := at - backend.opened) > limit)
    return tuple(reversed(ages[:unused]))
