"""How fast a leak grows, from the ages of what it leaked so far. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Seconds that must have been seen; a pace out of less is noise. Where limits are shorter than this, they take its place.
_TOO_EARLY = 60.0
_SHORTEST = 10.0  # seconds, whatever the limits
_FEWEST = 3  # two gaps
#: After so many times the mean gap without a new one, a leak that goes on evenly by chance is one of twenty (exp(-3)).
_STOPPED = 3.0
#: An old straggler, or a leak that became worse: what the younger half says counts where it is so many times the average.
_FASTER = 2.0
_INSTANT = 1.0  # seconds; what began at one moment has no pace of its own


@dataclass(frozen=True, slots=True)
class Pace:
    """Leaked connections per hour; 0 when there were no new ones for much longer than it took from one to the next."""

    per_hour: float
    last: float  # seconds ago that the youngest began

    @property
    def has_stopped(self) -> bool:
        return self.per_hour == 0


def pace(ages: Iterable[float], unseen: float) -> Pace | None:
    """The pace of leaked connections of these ages in seconds, None when it is too early to say.

    What is younger than ``unseen`` is not judged yet, so that time tells nothing, neither for nor against growth.
    """
    births = sorted(ages, reverse=True)
    if len(births) < _FEWEST or births[0] - unseen < max(min(_TOO_EARLY, unseen), _SHORTEST):
        return None
    on_average = _per_hour(births, unseen)
    lately = _per_hour(births[len(births) // 2 :], unseen) if len(births) >= 2 * _FEWEST else 0.0
    return Pace(lately if lately > _FASTER * on_average else on_average, births[-1])


def _per_hour(births: Sequence[float], unseen: float) -> float:
    first, last = births[0], births[-1]
    gap = (first - last) / (len(births) - 1)
    quiet = max(last - unseen, 0.0)
    if quiet > _STOPPED * gap:
        return 0.0
    # A silence that is longer than usual makes it slower, before it counts as the end.
    span = max(first - last + max(quiet - gap, 0.0), _INSTANT)
    return (len(births) - 1) / span * 3600
