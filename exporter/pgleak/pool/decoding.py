"""Bytes that `encoding` made, as a snapshot again. Whatever else they are, they are refused and harm nothing."""

from __future__ import annotations

import math
import struct
from array import array
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from pgleak.pool.encoding import (
    HEAD,
    HOLDERS,
    OWNER_KINDS,
    OWNER_STATES,
    PLACES,
    UNLIMITED,
    VERSION,
)
from pgleak.pool.snapshot import (
    CREATE_BOUNDS,
    USE_BOUNDS,
    Backend,
    Checkout,
    EngineSite,
    Expected,
    Frame,
    Histogram,
    Limits,
    Owner,
    PoolCounters,
    PoolSnapshot,
    ProcessIdentity,
    ProcessSnapshot,
    SiteStatistics,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# The workers of one application hold at the same places: most of these have been made for another file already.
_frame = lru_cache(maxsize=10_000)(Frame)
_owner = lru_cache(maxsize=10_000)(Owner)


class MalformedSnapshotError(ValueError):
    """The data is not a snapshot. The message says what is wrong and never quotes the data."""


class OtherVersionError(MalformedSnapshotError):
    """The data was written by another version of pgleak, or is no snapshot at all."""


def decode(data: bytes) -> ProcessSnapshot:
    """The snapshot that `encode` was given. Raises MalformedSnapshotError for anything else, whatever it is."""
    try:
        return _Reader(data).snapshot()
    except MalformedSnapshotError:
        raise
    except (TypeError, ValueError, LookupError, OverflowError, StopIteration, struct.error) as error:
        raise MalformedSnapshotError(f"malformed snapshot: {type(error).__name__}") from None


class _Reader:
    def __init__(self, data: bytes) -> None:
        version, integer_columns, number_columns, integers, numbers, text = HEAD.unpack_from(data)
        if version != VERSION:
            raise OtherVersionError("not a snapshot of this version")
        lengths, all_integers, all_numbers = array("I"), array("q"), array("d")
        end = HEAD.size
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
        dead_owner, alive_owner, alive_factor, unproven_site = map(_limited, times)
        self._stacks = self._stacks_of()
        return ProcessSnapshot(
            ProcessIdentity(pid, started, boot, host, application_name),
            taken,
            Limits(dead_owner, alive_owner, alive_factor, unproven_site, samples),
            tuple([self._pool() for _ in range(pools)]),
            errors,
        )

    def _stacks_of(self) -> list[tuple[Frame, ...]]:
        texts = self._texts(), self._texts(), self._texts()
        columns = *texts, next(self._integers), next(self._integers), list(map(bool, next(self._integers)))
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
            connections_max=_limited(limit),
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
        kinds, places = self._words(HOLDERS), self._words(PLACES)
        sites, frames = self._texts(), list(map(stack, next(self._integers)))
        owner = self._words(OWNER_KINDS), self._texts(), self._words(OWNER_STATES), next(self._numbers)
        owners = list(map(_owner, *_equally_long(*owner, list(map(bool, next(self._integers))))))
        standing, contexts = list(map(stack, next(self._integers))), self._texts()
        expected: list[Expected | None] = [None] * len(numbers)
        for index, name, max_seconds in zip(next(self._integers), self._texts(), next(self._numbers), strict=True):
            expected[index] = Expected(name, _limited(max_seconds))
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


def _limited(value: float) -> float:
    return math.inf if value == UNLIMITED else value


def _columns(values: list[Any], lengths: array[int]) -> Iterator[list[Any]]:
    return iter([values[start:end] for start, end in pairwise(accumulate(lengths, initial=0))])


def _equally_long(*columns: Sequence[Any]) -> tuple[Sequence[Any], ...]:
    if len({*map(len, columns)}) != 1:
        raise MalformedSnapshotError("columns of one length were expected")
    return columns
