"""A bound on label values that others choose: the first ones keep their names, the rest is summed up under one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

OTHER = "(other)"
"""Where values beyond the cap are summed up."""

OTHER_IGNORED = "(other ignored)"
"""The same for connections that the settings exempt from judgement, so that none of them is ever judged."""

KEEP_SECONDS = 3600.0
"""How long a value that nothing has any more keeps its place, and an application that fell to zero is reported as 0."""


class StickyCap:
    """Admits at most ``limit`` distinct values; one that was not seen for an hour gives its place up.

    Who was admitted first stays, whatever comes later: a series that changes between its name and ``(other)`` is worth
    nothing.
    """

    __slots__ = ("_admitted", "limit", "other", "overflowed")

    def __init__(self, limit: int, other: str = OTHER) -> None:
        self.limit = limit
        self.other = other
        self.overflowed = 0  # distinct values of the last update that were not admitted
        self._admitted: dict[str, float] = {}

    def __contains__(self, value: str) -> bool:
        return value in self._admitted

    def update(self, counts: Mapping[str, float], now: float) -> None:
        """Take note of all values present now, each with a number; of several new ones the largest come first."""
        admitted = self._admitted
        for value in counts.keys() & admitted.keys():
            admitted[value] = now
        newcomers = counts.keys() - admitted.keys()
        if newcomers:
            for value in [value for value, seen in admitted.items() if now - seen > KEEP_SECONDS]:
                del admitted[value]
            free = max(self.limit - len(admitted), 0)
            for value in sorted(newcomers, key=lambda value: (-counts[value], value))[:free]:
                admitted[value] = now
            self.overflowed = max(len(newcomers) - free, 0)
        else:
            self.overflowed = 0

    def label(self, value: str) -> str:
        """Return the value, or what stands for the rest when it was not admitted."""
        return value if value in self._admitted else self.other


class CounterCap:
    """Counters of at most ``limit`` names, and the sum of all others as a counter that never falls.

    A plain sum would fall whenever one of the others is dropped, reset or admitted, and a counter that falls looks as if
    it had started again from zero. So what the others count is added up here, from one update to the next.
    """

    __slots__ = ("_cap", "_last", "_others")

    def __init__(self, limit: int) -> None:
        self._cap = StickyCap(limit)
        self._last: Mapping[str, Mapping[str, float]] = {}  # of the last update, whoever was admitted then
        self._others: dict[str, float] = {}  # kind -> sum; empty as long as everybody was admitted

    def fold(self, counters: Mapping[str, Mapping[str, float]], now: float) -> Mapping[str, Mapping[str, float]]:
        """Return kind -> name -> value with names beyond the cap under ``(other)``."""
        names = {name for values in counters.values() for name in values}
        self._cap.update({name: sum(values.get(name, 0) for values in counters.values()) for name in names}, now)
        if not self._cap.overflowed and not self._others:
            self._last = counters
            return counters
        folded = {}
        for kind, values in counters.items():
            last = self._last.get(kind, {})
            others = self._others.get(kind, 0.0)
            own = {}
            for name, value in values.items():
                if name in self._cap:
                    own[name] = value
                elif name in last:
                    others += value - last[name] if value >= last[name] else value
                else:
                    # Not there before: new, so that it has counted from zero, as on the first update of all.
                    others += value
            self._others[kind] = others
            folded[kind] = {**own, OTHER: others}
        self._last = counters
        return folded
