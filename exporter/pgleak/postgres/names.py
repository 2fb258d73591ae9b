"""From what clients call themselves to label values: rewriting, a sticky cap, and a memory for what fell to zero.

``application_name`` and the client address are chosen by clients, so their number is bounded here. Names that were
admitted first stay, whatever comes later: a series that changes between its name and ``(other)`` is worth nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgleak.application_names import rewrite
from pgleak.postgres.activity import HIDDEN, Application

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgleak.postgres.evidence import Packed
    from pgleak.settings import Settings

OTHER = "(other)"
"""Where names beyond the cap are summed up."""

UNSET = "(unset)"
"""Application name of clients that gave none."""

STARTING = "(starting)"
"""Application name of sessions that have not logged in yet, which PostgreSQL 18 and later show."""

KEEP_SECONDS = 3600.0
"""How long an application that fell to zero is reported as 0, and a name without connections keeps its place."""

_MOST_REMEMBERED = 1_000  # applications per server; bounds the memory when users and databases come and go
_MOST_REWRITES = 10_000  # cached rewrites; more distinct raw names than this in one scrape are recomputed


class StickyCap:
    """Admits at most ``limit`` distinct values; one that was not seen for an hour gives its place up."""

    __slots__ = ("_admitted", "_limit", "overflowed")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._admitted: dict[str, float] = {}
        self.overflowed = 0  # distinct values of the last update that were not admitted

    def update(self, counts: Mapping[str, int], now: float) -> None:
        """Take note of all values present now, with their numbers of connections; larger ones are admitted first."""
        admitted = self._admitted
        for value in counts.keys() & admitted.keys():
            admitted[value] = now
        newcomers = counts.keys() - admitted.keys()
        if newcomers:
            for value in [value for value, seen in admitted.items() if now - seen > KEEP_SECONDS]:
                del admitted[value]
            free = max(self._limit - len(admitted), 0)
            for value in sorted(newcomers, key=lambda value: (-counts[value], value))[:free]:
                admitted[value] = now
            self.overflowed = max(len(newcomers) - free, 0)
        else:
            self.overflowed = 0

    def label(self, value: str) -> str:
        """Return the value, or ``(other)`` when it was not admitted."""
        return value if value in self._admitted else OTHER


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
        self._caps = {
            "application_name": StickyCap(settings.caps.application_name),
            "client_addr": StickyCap(settings.caps.client_addr),
        }
        self._rewritten: dict[str, str] = {}
        self._ignored: dict[tuple[str, str], bool] = {}
        self._remembered: dict[tuple[str, ...], _Remembered] = {}

    @property
    def overflowed_applications(self) -> int:
        return self._caps["application_name"].overflowed

    @property
    def overflowed_addresses(self) -> int:
        return self._caps["client_addr"].overflowed

    def keys(self, packs: Sequence[Packed], now: float) -> list[tuple[str, ...]]:
        """Return for each pack its label values, in the order of ``group_by``. ``now`` is monotonic seconds."""
        names = [self._rewrite(pack.application_name) if pack.usename else STARTING for pack in packs]
        self._admit("application_name", names, packs, now)
        columns = {
            "datname": [pack.datname for pack in packs],
            "usename": [pack.usename for pack in packs],
            "application_name": [self._caps["application_name"].label(name) for name in names],
        }
        if "client_addr" in self._settings.group_by:
            addresses = [pack.client_addr for pack in packs]
            self._admit("client_addr", addresses, packs, now)
            columns["client_addr"] = [self._caps["client_addr"].label(address) for address in addresses]
        return list(zip(*(columns[name] for name in self._settings.group_by), strict=True))

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
                merged[key] = Application(dict.fromkeys(past.application.states, 0))
        return merged

    def ignored(self, key: tuple[str, ...]) -> bool:
        """Whether the settings exempt the application with these label values from judgement.

        The name decides; where a client gave none, the user does too.
        """
        labels = dict(zip(self._settings.group_by, key, strict=True))
        name, user = labels.get("application_name", OTHER), labels.get("usename", "")
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

    def _admit(self, column: str, values: Sequence[str], packs: Sequence[Packed], now: float) -> None:
        counts: dict[str, int] = {}
        for value, pack in zip(values, packs, strict=True):
            counts[value] = counts.get(value, 0) + len(pack.session_ms)
        self._caps[column].update(counts, now)
