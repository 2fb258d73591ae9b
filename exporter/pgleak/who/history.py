"""How many connections there were in the last 24 hours: kept in memory, bounded, for the page. Safe for concurrent use."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgleak.who.diagnosis import Findings
    from pgleak.who.report import Report

SLOT = 600.0  # seconds
SLOTS = 144  # a day
MOST = 1_000  # series; who was not seen for longest goes first

#: server, user, application; for a server as a whole, the latter two are empty.
Key: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page shows."""

    report: Report
    findings: Findings
    series: Mapping[Key, Mapping[int, int]]  # connections by slot since 1970, the oldest first

    @property
    def slot(self) -> int:
        """The slot of now."""
        return int(self.report.at // SLOT)


class History:
    """The floor of each slot: load raises the peaks, a leak raises the floor."""

    def __init__(self) -> None:
        self._series: OrderedDict[Key, dict[int, int]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, at: float, counts: Mapping[Key, int]) -> None:
        """Take note of the numbers at this moment, in Unix time."""
        slot = int(at // SLOT)
        with self._lock:
            for key, count in counts.items():
                slots = self._series.setdefault(key, {})
                self._series.move_to_end(key)
                slots[slot] = min(count, slots.get(slot, count))
                while len(slots) > SLOTS:
                    del slots[next(iter(slots))]
            while len(self._series) > MOST:
                self._series.popitem(last=False)

    def series(self) -> dict[Key, dict[int, int]]:
        """What is kept of every series; after gaps, more than the last day."""
        with self._lock:
            return {key: slots.copy() for key, slots in self._series.items()}
