"""What the folder of state files says at one moment: living processes, hung ones, and the counters of ended ones."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pgleak.pool import envelope
from pgleak.pool.decoding import MalformedSnapshotError, OtherVersionError, decode
from pgleak.pool.encoding import VERSION, encode
from pgleak.pool.folder import Folder, FolderError, StateName, UnfitFileError, is_locked
from pgleak.pool.snapshot import (
    OTHER_SITES,
    Limits,
    PoolCounters,
    PoolSnapshot,
    ProcessIdentity,
    ProcessSnapshot,
    add_counts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pgleak.pool.folder import StrPath
    from pgleak.pool.snapshot import Checkout

#: A process that holds its lock and has not written for so long hangs: five writes were due.
STALE_AFTER = 10.0
#: Why a file can be passed over. `version` is a file of another version of pgleak.
REASONS = (
    "checksum", "foreign", "foreign_owner", "malformed", "not_a_file", "renamed", "too_large", "truncated",
    "unreadable", "version",
)  # fmt: skip

#: The counters of ended processes. Each version of the encoding has its own, so that one does not overwrite another's.
ENDED = f"ended-{VERSION}"
_USELESS = 3600.0  # seconds after which an ended process's file that cannot be read is removed
_SITES = 200  # per pool and counter, for ended processes; what is beyond is kept under (other)
_POOLS = 500
_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Reported:
    """One living process's last word."""

    snapshot: ProcessSnapshot
    silence: float  # seconds since it was written

    @property
    def stale(self) -> bool:
        """Whether the process hangs: it lives, because its file is locked, but does not write any more."""
        return self.silence > STALE_AFTER


@dataclass(frozen=True, slots=True)
class Reading:
    """The folder at one moment."""

    processes: tuple[Reported, ...] = ()
    ended: Mapping[str, PoolCounters] = field(default_factory=dict)  # by pool name
    skipped: Mapping[str, int] = field(default_factory=dict)  # files passed over, by reason
    problem: str = ""  # why the folder could not be read at all; "" when it could
    detail: str = ""  # the problem in words, with the path and what to do
    unfolded: int = 0  # files of ended processes that `fold` would take away


def read(path: StrPath, *, now: Callable[[], float] = time.monotonic) -> Reading:
    """Read every file in the folder. Never raises: what cannot be read is in `skipped` or `problem`."""
    try:
        with Folder(path) as folder:
            return _read_at_one_moment(folder, now)
    except FolderError as error:
        return Reading(problem=error.reason, detail=str(error))
    except OSError as error:
        return Reading(problem="unreadable", detail=f"{os.fspath(path)}: {error.strerror}")


def fold(path: StrPath) -> int:
    """Add the counters of ended processes up in one file and remove theirs. How many went; 0 when others are at it.

    The names of the files that are in the sum are kept in it until they are gone, so that being killed anywhere in
    between counts nothing twice and loses nothing.
    """
    try:
        with Folder(path) as folder:
            if not folder.mine:
                return 0
            with folder.exclusive() as alone:
                return _fold(folder) if alone else 0
    except (FolderError, OSError, ValueError):  # the last one: a sum that does not fit whatever is left out
        return 0


def _read_at_one_moment(folder: Folder, now: Callable[[], float]) -> Reading:
    """Where the lock cannot be had in time, a reading in the midst of which somebody folded is thrown away."""
    found = Reading()
    for _ in range(_ATTEMPTS):
        with folder.shared():
            before = folder.identity(ENDED)
            found = _read(folder, now())
            if folder.identity(ENDED) == before:
                break
    return found


def _read(folder: Folder, now: float) -> Reading:
    processes: list[Reported] = []
    skipped: dict[str, int] = {}
    ended, folded = _ended(folder, skipped)
    unfolded = 0
    for name, state_name in _state_names(folder):
        opened = _open(folder, name, skipped)
        if opened is None:
            continue
        try:
            alive = is_locked(opened)
            if not alive:
                unfolded += 1
                if name in folded:
                    continue
            record = _snapshot(opened, state_name)
        except UnfitFileError as error:
            skipped[error.reason] = skipped.get(error.reason, 0) + 1
            continue
        finally:
            os.close(opened)
        snapshot, stamp = record
        if not alive:
            _add(ended, snapshot.pools)
            continue
        silence = max(now - stamp, 0.0)
        reported = Reported(snapshot, silence)
        processes.append(replace(reported, snapshot=_aged(snapshot, silence)) if reported.stale else reported)
    return Reading(tuple(processes), ended, skipped, unfolded=unfolded)


def _fold(folder: Folder) -> int:
    skipped: dict[str, int] = {}
    ended, folded = _ended(folder, skipped)
    taken: list[str] = []
    done: list[str] = []
    for name, state_name in _state_names(folder):
        opened = _open(folder, name, skipped)
        if opened is None:
            continue
        try:
            if is_locked(opened):
                continue
            done.append(name)
            if name not in folded:
                _add(ended, _snapshot(opened, state_name)[0].pools)
                taken.append(name)
        except UnfitFileError:
            if folder.age(name) < _USELESS:
                done.remove(name)
        finally:
            os.close(opened)
    if taken:
        _replace_ended(folder, ended, done)
    for name in done:
        folder.remove(name)
    folder.remove_unfinished()
    return len(done)


def _state_names(folder: Folder) -> Iterable[tuple[str, StateName]]:
    for name in folder.names():
        state_name = StateName.parse(name)
        if state_name is not None:
            yield name, state_name


def _open(folder: Folder, name: str, skipped: dict[str, int]) -> int | None:
    try:
        return folder.open(name)
    except FileNotFoundError:
        return None
    except UnfitFileError as error:
        skipped[error.reason] = skipped.get(error.reason, 0) + 1
        return None


def _snapshot(descriptor: int, name: StateName) -> tuple[ProcessSnapshot, float]:
    record = _record(descriptor)
    if record.token != name.token:
        raise UnfitFileError("renamed")
    return _decoded(record.payload), record.stamp


def _record(descriptor: int) -> envelope.Record:
    try:
        return envelope.read(descriptor)
    except envelope.DamagedRecordError as error:
        raise UnfitFileError(error.reason) from None
    except OSError:
        raise UnfitFileError("unreadable") from None


def _decoded(payload: bytes) -> ProcessSnapshot:
    try:
        return decode(payload)
    except OtherVersionError:
        raise UnfitFileError("version") from None
    except MalformedSnapshotError:
        raise UnfitFileError("malformed") from None


def _add(ended: dict[str, PoolCounters], pools: Iterable[PoolSnapshot]) -> None:
    for pool in pools:
        before = ended.get(pool.name)
        ended[pool.name] = pool.counters if before is None else before.plus(pool.counters)


def _ended(folder: Folder, skipped: dict[str, int]) -> tuple[dict[str, PoolCounters], frozenset[str]]:
    opened = _open(folder, ENDED, skipped)
    if opened is None:
        return {}, frozenset()
    try:
        names, snapshot = _sum(_record(opened).payload)
    except UnfitFileError as error:
        skipped[error.reason] = skipped.get(error.reason, 0) + 1
        return {}, frozenset()
    finally:
        os.close(opened)
    return {pool.name: pool.counters for pool in snapshot.pools}, names


def _sum(payload: bytes) -> tuple[frozenset[str], ProcessSnapshot]:
    """The names of the files in it, in a line of their own, then the snapshot."""
    names, newline, snapshot = payload.partition(b"\n")
    if not newline:
        raise UnfitFileError("malformed")
    return frozenset(names.decode("ascii", errors="replace").split()), _decoded(snapshot)


def _replace_ended(folder: Folder, ended: Mapping[str, PoolCounters], folded: list[str]) -> None:
    names, sites, pools = " ".join(folded).encode() + b"\n", _SITES, _POOLS
    payload = names + _encoded(_bounded(ended, pools, sites))
    while len(payload) > envelope.LIMIT and pools > 1:
        if sites > 1:
            sites //= 2
        else:
            pools //= 2
        payload = names + _encoded(_bounded(ended, pools, sites))
    token = os.urandom(16)
    descriptor = folder.create(token)
    try:
        envelope.write(descriptor, envelope.Record(0, 0.0, token, payload))
        folder.finish(token, ENDED)
    finally:
        os.close(descriptor)


def _encoded(ended: Mapping[str, PoolCounters]) -> bytes:
    pools = tuple(_counters_only(name, counters) for name, counters in ended.items())
    return encode(ProcessSnapshot(ProcessIdentity(0, 0.0, "", "", ""), time.time(), Limits(), pools))


def _counters_only(name: str, counters: PoolCounters) -> PoolSnapshot:
    return PoolSnapshot(name, "", "", "", 0, 0.0, 0, (), (), (), {}, counters)


def _bounded(ended: Mapping[str, PoolCounters], pools: int, sites: int) -> dict[str, PoolCounters]:
    ranked = sorted(ended, key=lambda name: ended[name].checkouts, reverse=True)
    kept = {name: _with_bounded_sites(ended[name], sites) for name in ranked[:pools]}
    for name in ranked[pools:]:
        rest = kept.get(OTHER_SITES, PoolCounters())
        kept[OTHER_SITES] = _with_bounded_sites(rest.plus(ended[name]), sites)
    return kept


def _with_bounded_sites(counters: PoolCounters, sites: int) -> PoolCounters:
    return replace(
        counters,
        suspects=_top(counters.suspects, sites),
        suspects_returned=_top(counters.suspects_returned, sites),
        returned_by_gc=_top(counters.returned_by_gc, sites),
    )


def _top(counts: Mapping[str, int], most: int) -> Mapping[str, int]:
    if len(counts) <= most:
        return counts
    ranked = sorted((site for site in counts if site != OTHER_SITES), key=counts.__getitem__, reverse=True)
    rest = sum(counts[site] for site in ranked[most:])
    return add_counts({site: counts[site] for site in ranked[:most]}, {OTHER_SITES: rest + counts.get(OTHER_SITES, 0)})


def _aged(snapshot: ProcessSnapshot, silence: float) -> ProcessSnapshot:
    """A hung process still holds what it held; its ages went on."""

    def aged(held: Checkout) -> Checkout:
        owner = held.owner
        if owner.state == "dead":
            owner = replace(owner, dead_for=owner.dead_for + silence)
        return replace(held, age=held.age + silence, owner=owner)

    pools = tuple(replace(pool, checkouts=tuple(map(aged, pool.checkouts))) for pool in snapshot.pools)
    return replace(snapshot, pools=pools)
