"""The places in the code that check connections out, and the habits of each."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from pgleak.pool.snapshot import USE_BOUNDS

if TYPE_CHECKING:
    from types import CodeType

#: Fine enough that "five times the p99" means something; contains every bound of the metric.
SITE_BOUNDS = tuple(
    sorted({*USE_BOUNDS, 0.002, 0.02, 0.03, 0.2, 0.3, 2.0, 3.0, 7.0, 15.0, 20.0, 45.0, 90.0, 120.0, 180.0, 450.0, 600.0, 900.0,
            1800.0, 3600.0, 7200.0, 14400.0})
)  # fmt: skip

#: What lasted no longer is in the first bucket.
BRIEF = SITE_BOUNDS[0]


class Site:
    """One place in the code that checks connections out, and how long it kept them."""

    __slots__ = ("checkouts", "code", "counts", "returned_by_gc", "seconds")

    def __init__(self, code: CodeType | None) -> None:
        self.code = code  # kept, so that its id stays its own
        self.forget()

    def forget(self) -> None:
        self.checkouts = 0
        self.returned_by_gc = 0
        self.counts = [0] * (len(SITE_BOUNDS) + 1)
        self.seconds = 0.0

    def record(self, used: float) -> None:
        self.counts[bisect_left(SITE_BOUNDS, used)] += 1
        self.seconds += used
