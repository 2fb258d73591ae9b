"""Snapshots as bytes and back, made to be read fast: one scrape reads the files of all workers.

Everything is columns of integers or columns of numbers, written and read in the same order; strings, frames and stacks
stand once and are referred to by their index. The columns are the machine's own 64-bit integers and doubles, so that
nothing has to be parsed and no value can be of another type: the bytes never leave the machine.
"""

from __future__ import annotations

import math
import struct
from array import array
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Any, get_args

from pgleak.pool.snapshot import (
    CREATE_BOUNDS,
    USE_BOUNDS,
    Backend,
    Checkout,
    EngineSite,
    Expected,
    Frame,
    Histogram,
    HolderKind,
    Limits,
    Owner,
    OwnerKind,
    OwnerState,
    Place,
    PoolCounters,
    PoolSnapshot,
    ProcessIdentity,
    ProcessSnapshot,
    SiteStatistics,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

#: Raised by one whenever a field is added, removed or moved, or a bucket changes: readers skip files of another version.
VERSION = 2

_HEAD = struct.Struct("=6I")  # version; how many columns of integers, of numbers; integers, numbers, bytes of text

# Words are their index in the type that lists them: stored as numbers, and nothing else can come out.
_HOLDERS: tuple[HolderKind, ...] = get_args(HolderKind)
_PLACES: tuple[Place, ...] = get_args(Place)
_OWNER_KINDS: tuple[OwnerKind, ...] = get_args(OwnerKind)
_OWNER_STATES: tuple[OwnerState, ...] = get_args(OwnerState)

# The workers of one application hold at the same places: most of these have been made for another file already.
_frame = lru_cache(maxsize=10_000)(Frame)
_owner = lru_cache(maxsize=10_000)(Owner)

_UNLIMITED = -1.0  # an infinity would hide damage: every number in a file is finite


class MalformedSnapshotError(ValueError):
    """The data is not a snapshot. The message says what is wrong and never quotes the data."""


class OtherVersionError(MalformedSnapshotError):
    """The data was written by another version of pgleak, or is no snapshot at all."""


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
    head = _HEAD.pack(VERSION, *columns, len(integers), len(numbers), len(text))
    return b"".join((head, lengths, integers, numbers, text))


def decode(data: bytes) -> ProcessSnapshot:
    """The snapshot that `encode` was given. Raises MalformedSnapshotError for anything else, whatever it is."""
    try:
        return _Reader(data).snapshot()
    except MalformedSnapshotError:
        raise
    except (TypeError, ValueError, LookupError, OverflowError, StopIteration, struct.error) as error:
        raise MalformedSnapshotError(f"malformed snapshot: {type(error).__name__}") from None


class _Writer:
    """Each method has its counterpart of the same name in the reader, with the same columns in the same order."""

    def __init__(self) -> None:
        self.strings: dict[str, int] = {}
        self.integer_columns: list[list[int]] = []
        self.number_columns: list[list[float]] = []

    def snapshot(self, snapshot: ProcessSnapshot) -> None:
        process, limits = snapshot.process, snapshot.limits
        self._texts((process.boot, process.host, process.application_name))
        self._integers((process.pid, limits.samples, snapshot.errors, len(snapshot.pools)))
        times = (limits.dead_owner, limits.alive_owner, limits.alive_factor, limits.unproven_site)
        self._numbers((process.started, snapshot.taken, *times))
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
        index = {frame: number for number, frame in enumerate(frames)}
        self._integers((len(stacks),))
        for stack in stacks:
            self._integers(map(index.__getitem__, stack))
        self._stacks = {stack: number for number, stack in enumerate(stacks)}

    def _pool(self, pool: PoolSnapshot) -> None:
        self._texts((pool.name, pool.pool_class, pool.application_name, pool.server))
        self._integers((pool.engines, pool.pending))
        self._numbers((_UNLIMITED if pool.connections_max == math.inf else pool.connections_max,))
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
        self._integers(_HOLDERS.index(each.kind) for each in checkouts)
        self._integers(_PLACES.index(each.place) for each in checkouts)
        self._texts(each.site for each in checkouts)
        self._integers(self._stacks[each.frames] for each in checkouts)
        self._integers(_OWNER_KINDS.index(each.owner.kind) for each in checkouts)
        self._texts(each.owner.name for each in checkouts)
        self._integers(_OWNER_STATES.index(each.owner.state) for each in checkouts)
        self._numbers(each.owner.dead_for for each in checkouts)
        self._integers(self._stacks[each.standing] for each in checkouts)
        self._texts(each.context for each in checkouts)
        expected = [(index, each.expected) for index, each in enumerate(checkouts) if each.expected is not None]
        self._integers(index for index, _ in expected)
        self._texts(each.name for _, each in expected)
        self._numbers(each.max_seconds for _, each in expected)

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


class _Reader:
    def __init__(self, data: bytes) -> None:
        version, integer_columns, number_columns, integers, numbers, text = _HEAD.unpack_from(data)
        if version != VERSION:
            raise OtherVersionError("not a snapshot of this version")
        lengths, all_integers, all_numbers = array("I"), array("q"), array("d")
        end = _HEAD.size
        for column, count in (
            (lengths, integer_columns + number_columns),
            (all_integers, integers),
            (all_numbers, numbers),
        ):
            start, end = end, end + count * column.itemsize
            column.frombytes(data[start:end])
        if len(data) != end + text or sum(lengths) != integers + numbers:
            raise MalformedSnapshotError("lengths that do not fit")
        if not math.isfinite(sum(all_numbers)):  # infinite ones, and those that are none, make such a sum
            raise MalformedSnapshotError("finite numbers were expected")
        self._string = str(data[end:], "utf-8").split("\0").__getitem__
        self._integers: Iterator[list[int]] = _columns(all_integers.tolist(), lengths[:integer_columns])
        self._numbers: Iterator[list[float]] = _columns(all_numbers.tolist(), lengths[integer_columns:])

    def snapshot(self) -> ProcessSnapshot:
        boot, host, application_name = self._texts()
        pid, samples, errors, pools = next(self._integers)
        started, taken, *times = next(self._numbers)
        dead_owner, alive_owner, alive_factor, unproven_site = times
        self._stacks = self._stacks_of()
        return ProcessSnapshot(
            ProcessIdentity(pid, started, boot, host, application_name),
            taken,
            Limits(dead_owner, alive_owner, alive_factor, unproven_site, samples),
            tuple([self._pool() for _ in range(pools)]),
            errors,
        )

    def _stacks_of(self) -> list[tuple[Frame, ...]]:
        columns = self._texts(), self._texts(), self._texts(), next(self._integers)
        frame = list(map(_frame, *_equally_long(*columns))).__getitem__
        (stacks,) = next(self._integers)
        return [tuple(map(frame, next(self._integers))) for _ in range(stacks)]

    def _pool(self) -> PoolSnapshot:
        name, pool_class, application_name, server = self._texts()
        engines, pending = next(self._integers)
        (limit,) = next(self._numbers)
        return PoolSnapshot(
            name=name,
            pool_class=pool_class,
            application_name=application_name,
            server=server,
            engines=engines,
            connections_max=math.inf if limit == _UNLIMITED else limit,
            pending=pending,
            idle=tuple(self._backends()),
            checkouts=tuple(self._checkouts()),
            orphans=tuple(self._backends()),
            sites=self._sites(),
            counters=self._counters(),
            made=tuple(self._made()),
            orphaned_at=tuple([self._stacks[index] for index in next(self._integers)]),
        )

    def _made(self) -> Iterable[EngineSite]:
        frames = [self._stacks[index] for index in next(self._integers)]
        return map(EngineSite, *_equally_long(frames, next(self._integers), next(self._integers)))

    def _backends(self) -> Iterable[Backend]:
        pids = [pid or None for pid in next(self._integers)]
        return map(Backend, *_equally_long(pids, next(self._numbers), self._texts()))

    def _checkouts(self) -> Iterable[Checkout]:
        stack = self._stacks.__getitem__
        numbers = next(self._integers)
        backends = list(self._backends())
        checked_out_at, ages = next(self._numbers), next(self._numbers)
        kinds, places = self._words(_HOLDERS), self._words(_PLACES)
        sites, frames = self._texts(), list(map(stack, next(self._integers)))
        owner = self._words(_OWNER_KINDS), self._texts(), self._words(_OWNER_STATES), next(self._numbers)
        owners = list(map(_owner, *_equally_long(*owner)))
        standing, contexts = list(map(stack, next(self._integers))), self._texts()
        expected: list[Expected | None] = [None] * len(numbers)
        for index, name, max_seconds in zip(next(self._integers), self._texts(), next(self._numbers), strict=True):
            expected[index] = Expected(name, max_seconds)
        columns = (numbers, backends, checked_out_at, ages, kinds, places, sites, frames, owners, standing, contexts)
        return map(Checkout, *_equally_long(*columns, expected))

    def _sites(self) -> dict[str, SiteStatistics]:
        names = self._texts()
        statistics = map(SiteStatistics, *_equally_long(next(self._integers), next(self._numbers)))
        return dict(zip(names, statistics, strict=True))

    def _counters(self) -> PoolCounters:
        checkouts, opened, timeouts = next(self._integers)
        closed, suspects, suspects_returned, returned_by_gc = [
            dict(zip(self._texts(), next(self._integers), strict=True)) for _ in range(4)
        ]
        use, create = next(self._integers), next(self._integers)
        wait_seconds, use_seconds, create_seconds = next(self._numbers)
        return PoolCounters(
            checkouts,
            opened,
            timeouts,
            wait_seconds,
            closed,
            suspects,
            suspects_returned,
            returned_by_gc,
            use=_histogram(USE_BOUNDS, use, use_seconds),
            create=_histogram(CREATE_BOUNDS, create, create_seconds),
        )

    def _texts(self) -> list[str]:
        return list(map(self._string, next(self._integers)))

    def _words(self, known: Sequence[Any]) -> list[Any]:
        return list(map(known.__getitem__, next(self._integers)))


def _histogram(bounds: tuple[float, ...], counts: list[int], total: float) -> Histogram:
    if len(counts) != len(bounds) + 1:
        raise MalformedSnapshotError("a histogram needs one count more than bounds")
    return Histogram(bounds, tuple(counts), total)


def _columns(values: list[Any], lengths: array[int]) -> Iterator[list[Any]]:
    return iter([values[start:end] for start, end in pairwise(accumulate(lengths, initial=0))])


def _equally_long(*columns: Sequence[Any]) -> tuple[Sequence[Any], ...]:
    if len({*map(len, columns)}) != 1:
        raise MalformedSnapshotError("columns of one length were expected")
    return columns
