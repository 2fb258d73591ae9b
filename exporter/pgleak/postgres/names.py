"""From what clients call themselves to label values: rewriting, whom not to judge, caps, a memory for what fell to zero.

Whom the settings ignore is decided by the whole name, before a cap folds it, and the ignored have places of their own:
neither do they take one from an application, nor are they judged as a part of ``(other)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgleak.application_names import rewrite
from pgleak.metrics import GROUPING
from pgleak.postgres.activity import HIDDEN, Application, Place
from pgleak.postgres.caps import KEEP_SECONDS, OTHER, OTHER_IGNORED, CounterCap, StickyCap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgleak.postgres.activity import Server
    from pgleak.postgres.evidence import Packed
    from pgleak.settings import Settings

UNSET = "(unset)"
"""Application name of clients that gave none."""

STARTING = "(starting)"
"""Application name of sessions that have not logged in yet, which PostgreSQL 18 and later show."""

_MOST_REMEMBERED = 1_000  # applications per server; bounds the memory when users and databases come and go
_COMBINATIONS = 10  # times the largest cap: the most combinations of labels per server
_MOST_REWRITES = 2_000  # cached rewrites; more distinct raw names than this in one scrape are recomputed


@dataclass(slots=True)
class _Remembered:
    application: Application
    seen: float


class Namer:
    """Gives each pack of connections of one server its label values; keeps state from scrape to scrape.

    Not safe for concurrent use: one read of a server runs at a time.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        limits = {name: getattr(settings.caps, name) for name in GROUPING}
        self._caps = {name: StickyCap(limit) for name, limit in limits.items()}
        self._caps_of_ignored = {name: StickyCap(limit, OTHER_IGNORED) for name, limit in limits.items()}
        self._combinations = StickyCap(_COMBINATIONS * max(limits.values()))
        self._counters = CounterCap(settings.caps.datname)
        self._rewritten: dict[str, str] = {}
        self._ignored: dict[tuple[str, str], bool] = {}
        self._remembered: dict[tuple[str, ...], _Remembered] = {}

    @property
    def overflowed(self) -> dict[str, int]:
        """Label -> distinct values now beyond its cap, of connections that are judged; only labels in use."""
        return {name: self._caps[name].overflowed for name in self._settings.group_by}

    @property
    def combinations_overflowed(self) -> int:
        """Combinations of labels now that have no series of their own."""
        return self._combinations.overflowed

    def places(self, packs: Sequence[Packed], now: float) -> list[Place]:
        """Return for each pack where it belongs. ``now`` is monotonic seconds."""
        names = [self._rewrite(pack.application_name) if pack.usename else STARTING for pack in packs]
        ignored = [self._ignores(name, pack.usename) for name, pack in zip(names, packs, strict=True)]
        sizes = [pack.size for pack in packs]
        group_by = self._settings.group_by
        columns = []
        for column in group_by:
            values = names if column == "application_name" else [getattr(pack, column) for pack in packs]
            columns.append(self._labels(column, values, sizes, ignored, now))
        keys = self._bounded_keys(list(zip(*columns, strict=True)), sizes, ignored, now)
        if "application_name" in group_by:
            index = group_by.index("application_name")
            labels: Sequence[str] = [key[index] for key in keys]
        else:
            labels = self._labels("application_name", names, sizes, ignored, now)
        return list(map(Place, keys, labels, ignored))

    def _bounded_keys(
        self, keys: Sequence[tuple[str, ...]], sizes: Sequence[int], ignored: Sequence[bool], now: float
    ) -> Sequence[tuple[str, ...]]:
        """Fold what the caps of single labels leave when their combinations are too many."""
        if len(set(keys)) <= self._combinations.limit:
            self._combinations.overflowed = 0
            return keys
        counts: dict[str, float] = {}
        for key, size in zip(keys, sizes, strict=True):
            joined = "\0".join(key)  # PostgreSQL has no NUL in its texts
            counts[joined] = counts.get(joined, 0) + size
        self._combinations.update(counts, now)
        return [
            key if "\0".join(key) in self._combinations else (OTHER_IGNORED if is_ignored else OTHER,) * len(key)
            for key, is_ignored in zip(keys, ignored, strict=True)
        ]

    def bounded(self, server: Server, now: float) -> Server:
        """Return what is known of a server with no more names in it than the caps allow.

        A limit is of use beside the connections that it is for, so those whose name has a place come first.
        """
        return replace(
            server,
            role_limits=self._limits("usename", server.role_limits),
            database_limits=self._limits("datname", server.database_limits),
            sessions=self._counters.fold(server.sessions, now),
        )

    def remember(
        self, applications: Mapping[tuple[str, ...], Application], now: float
    ) -> dict[tuple[str, ...], Application]:
        """Add what was there within the last hour as 0: states of an application, and whole applications."""
        merged = dict(applications)
        remembered = self._remembered
        for key, application in applications.items():
            before = remembered.pop(key, None)
            # States that a grant has just hidden are unknown from now on, and not 0.
            states = dict.fromkeys(before.application.states, 0) if before and application.visible else {}
            states.pop(HIDDEN, None)
            merged[key] = replace(application, states={**states, **application.states})
            if STARTING not in key:  # not an application: it comes and goes with every login
                remembered[key] = _Remembered(merged[key], now)
        for key, past in list(remembered.items()):
            if key in applications:
                continue
            if now - past.seen > KEEP_SECONDS or len(remembered) > _MOST_REMEMBERED:
                del remembered[key]
            else:
                merged[key] = Application(dict.fromkeys(past.application.states, 0), ignored=past.application.ignored)
        return merged

    def _ignores(self, name: str, user: str) -> bool:
        """Whether the settings exempt this application of this user from judgement.

        The name decides; where a client gave none, the user does too.
        """
        known = self._ignored.get((name, user))
        if known is None:
            if len(self._ignored) >= _MOST_REWRITES:
                self._ignored.clear()
            patterns = self._settings.ignored_applications
            known = any(pattern.fullmatch(name) for pattern in patterns) or any(
                pattern.fullmatch(user) for pattern in self._settings.ignored_users
            )
            if name == UNSET and not known:
                known = any(pattern.fullmatch(user) for pattern in patterns)
            self._ignored[name, user] = known
        return known

    def _rewrite(self, raw: str) -> str:
        name = self._rewritten.get(raw)
        if name is None:
            if len(self._rewritten) >= _MOST_REWRITES:
                self._rewritten.clear()
            name = self._rewritten[raw] = rewrite(raw, self._settings.application_names).strip() or UNSET
        return name

    def _labels(
        self, column: str, values: Sequence[str], sizes: Sequence[int], ignored: Sequence[bool], now: float
    ) -> Sequence[str]:
        cap, cap_of_ignored = self._caps[column], self._caps_of_ignored[column]
        counts: dict[str, int] = {}
        counts_of_ignored: dict[str, int] = {}
        for value, size, is_ignored in zip(values, sizes, ignored, strict=True):
            counts_of_side = counts_of_ignored if is_ignored else counts
            counts_of_side[value] = counts_of_side.get(value, 0) + size
        cap.update(counts, now)
        cap_of_ignored.update(counts_of_ignored, now)
        if not (cap.overflowed or cap_of_ignored.overflowed):
            return values
        return [
            (cap_of_ignored if is_ignored else cap).label(value)
            for value, is_ignored in zip(values, ignored, strict=True)
        ]

    def _limits(self, column: str, limits: Mapping[str, int]) -> Mapping[str, int]:
        cap = self._caps[column]
        if len(limits) <= cap.limit:
            return limits
        kept = sorted(limits, key=lambda name: (name not in cap, name))[: cap.limit]
        return {name: limits[name] for name in kept}
