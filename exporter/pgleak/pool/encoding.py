"""Snapshots as bytes, made to be read fast (`decoding`): one scrape reads the files of all workers.

Everything is columns of integers or columns of numbers, written and read in the same order; strings, frames and stacks
stand once and are referred to by their index. The columns are the machine's own 64-bit integers and doubles, so that
nothing has to be parsed and no value can be of another type: the bytes never leave the machine.
"""

from __future__ import annotations

import struct
from array import array
from itertools import chain
from typing import TYPE_CHECKING, get_args

from pgleak.pool.snapshot import (
    Backend,
    Checkout,
    HolderKind,
    OwnerKind,
    OwnerState,
    Place,
    PoolCounters,
    PoolSnapshot,
    ProcessSnapshot,
    SiteStatistics,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Raised by one whenever a field is added, removed or moved, or a bucket changes: readers skip files of another version.
VERSION = 4

HEAD = struct.Struct("=6I")  # version; how many columns of integers, of numbers; integers, numbers, bytes of text

# Words are their index in the type that lists them: stored as numbers, and nothing else can come out.
HOLDERS: tuple[HolderKind, ...] = get_args(HolderKind)
PLACES: tuple[Place, ...] = get_args(Place)
OWNER_KINDS: tuple[OwnerKind, ...] = get_args(OwnerKind)
OWNER_STATES: tuple[OwnerState, ...] = get_args(OwnerState)

UNLIMITED = -1.0  # an infinity would hide damage: every number in a file is finite, and so is their sum
_LONGEST = 1e15  # what is more may as well be unlimited: thirty million years in seconds


def _limited(value: float) -> float:
    return value if value < _LONGEST else UNLIMITED


def encode(snapshot: ProcessSnapshot) -> bytes:
    """The snapshot in this machine's own order of bytes."""
    writer = _Writer()
    writer.snapshot(snapshot)
    integers = array("q", chain.from_iterable(writer.integer_columns))
    numbers = array("d", chain.from_iterable(writer.number_columns))
    text = "\0".join(each.replace("\0", "\N{REPLACEMENT CHARACTER}") for each in writer.strings).encode(
        errors="replace"
    )
    lengths = array("I", [*map(len, writer.integer_columns), *map(len, writer.number_columns)])
    columns = len(writer.integer_columns), len(writer.number_columns)
    head = HEAD.pack(VERSION, *columns, len(integers), len(numbers), len(text))
    return b"".join((head, lengths, integers, numbers, text))


class _Writer:
    """Each method has its counterpart of the same name in `decoding`, with the same columns in the same order."""

    def __init__(self) -> None:
        self.strings: dict[str, int] = {}
        self.integer_columns: list[list[int]] = []
        self.number_columns: list[list[float]] = []

    def snapshot(self, snapshot: ProcessSnapshot) -> None:
        process, limits = snapshot.process, snapshot.limits
        self._texts((process.boot, process.host, process.application_name))
        self._integers((process.pid, limits.samples, snapshot.errors, len(snapshot.pools)))
        times = (limits.dead_owner, limits.alive_owner, limits.alive_factor, limits.unproven_site)
        self._numbers((process.started, snapshot.taken, *map(_limited, times)))
        self._stacks_of(snapshot)
        for pool in snapshot.pools:
            self._pool(pool)

    def _stacks_of(self, snapshot: ProcessSnapshot) -> None:
        held = [checkout for pool in snapshot.pools for checkout in pool.checkouts]
        stacks = dict.fromkeys(stack for checkout in held for stack in (checkout.frames, checkout.standing))
        stacks |= dict.fromkeys(made.frames for pool in snapshot.pools for made in pool.made)
        stacks |= dict.fromkeys(frames for pool in snapshot.pools for frames in pool.orphaned_at)
        frames = dict.fromkeys(frame for stack in stacks for frame in stack)
        self._texts(frame.module for frame in frames)
        self._texts(frame.function for frame in frames)
        self._texts(frame.file for frame in frames)
        self._integers(frame.line for frame in frames)
        self._integers(frame.end for frame in frames)
        self._integers(frame.is_generator for frame in frames)
        index = {frame: number for number, frame in enumerate(frames)}
        self._integers((len(stacks),))
        for stack in stacks:
            self._integers(map(index.__getitem__, stack))
        self._stacks = {stack: number for number, stack in enumerate(stacks)}

    def _pool(self, pool: PoolSnapshot) -> None:
        self._texts((pool.name, pool.pool_class, pool.application_name, pool.server))
        self._integers((pool.engines, pool.pending))
        self._numbers((_limited(pool.connections_max),))
        self._backends(pool.idle)
        self._checkouts(pool.checkouts)
        self._backends(pool.orphans)
        self._sites(pool.sites)
        self._counters(pool.counters)
        self._integers(self._stacks[made.frames] for made in pool.made)
        self._integers(made.engines for made in pool.made)
        self._integers(made.unused for made in pool.made)
        self._integers(self._stacks[frames] for frames in pool.orphaned_at)

    def _backends(self, backends: Sequence[Backend]) -> None:
        self._integers(each.pid or 0 for each in backends)
        self._numbers(each.opened for each in backends)
        self._texts(each.server for each in backends)

    def _checkouts(self, checkouts: Sequence[Checkout]) -> None:
        self._integers(each.number for each in checkouts)
        self._backends([each.backend for each in checkouts])
        self._numbers(each.checked_out_at for each in checkouts)
        self._numbers(each.age for each in checkouts)
        self._integers(HOLDERS.index(each.kind) for each in checkouts)
        self._integers(PLACES.index(each.place) for each in checkouts)
        self._texts(each.site for each in checkouts)
        self._integers(self._stacks[each.frames] for each in checkouts)
        self._integers(OWNER_KINDS.index(each.owner.kind) for each in checkouts)
        self._texts(each.owner.name for each in checkouts)
        self._integers(OWNER_STATES.index(each.owner.state) for each in checkouts)
        self._numbers(each.owner.dead_for for each in checkouts)
        self._integers(each.owner.runs_jobs for each in checkouts)
        self._integers(self._stacks[each.standing] for each in checkouts)
        self._texts(each.context for each in checkouts)
        expected = [(index, each.expected) for index, each in enumerate(checkouts) if each.expected is not None]
        self._integers(index for index, _ in expected)
        self._texts(each.name for _, each in expected)
        self._numbers(_limited(each.max_seconds) for _, each in expected)

    def _sites(self, sites: Mapping[str, SiteStatistics]) -> None:
        self._texts(sites)
        self._integers(each.samples for each in sites.values())
        self._numbers(each.p99 for each in sites.values())

    def _counters(self, counters: PoolCounters) -> None:
        self._integers((counters.checkouts, counters.opened, counters.timeouts))
        for counts in (counters.closed, counters.suspects, counters.suspects_returned, counters.returned_by_gc):
            self._texts(counts)
            self._integers(counts.values())
        self._integers(counters.use.counts)
        self._integers(counters.create.counts)
        self._numbers((counters.wait_seconds, counters.use.sum, counters.create.sum))

    def _integers(self, values: Iterable[int]) -> None:
        self.integer_columns.append(list(values))

    def _numbers(self, values: Iterable[float]) -> None:
        self.number_columns.append(list(values))

    def _texts(self, values: Iterable[str]) -> None:
        strings = self.strings
        self._integers(strings.setdefault(value, len(strings)) for value in values)
