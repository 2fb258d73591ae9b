"""How fast each application grows and when the server is full: the arithmetic of the alert rules, in small.

Load raises the peaks, a leak raises the floor: so the slope is taken of the minimum over a sliding window.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgleak.demo.view import View

FLOOR_WINDOW = 5.0  # seconds
SLOPE_WINDOW = 60.0
_FIRST_SLOPE = 8.0  # seconds of floors below which a slope would be noise

Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Outlook:
    """Growth in connections per minute; an application is missing until its growth is known.

    ``full_at`` is the Unix time at which the applications with suspects will have taken the last usable slot, None
    when they do not grow.
    """

    per_minute: Mapping[str, float] = field(default_factory=dict)
    full_at: float | None = None


def floor(points: Sequence[tuple[float, float]], window: float = FLOOR_WINDOW) -> Points:
    """Replace each value by the least one of the window before it; the first window has no value."""
    floors: Points = []
    recent: deque[tuple[float, float]] = deque()
    for now, value in points:
        recent.append((now, value))
        while recent[0][0] < now - window:
            recent.popleft()
        if now - points[0][0] >= window:
            floors.append((now, min(earlier for _, earlier in recent)))
    return floors


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the straight line with the least squares, per unit of time; 0 for less than two points."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


class History:
    """The views of the last minute."""

    def __init__(self) -> None:
        self._views: deque[View] = deque()
        self._before_full = Outlook()

    def add(self, view: View) -> None:
        if view.up:
            self._views.append(view)
        while self._views and self._views[0].time < view.time - SLOPE_WINDOW - FLOOR_WINDOW:
            self._views.popleft()

    def outlook(self) -> Outlook:
        """Judge from what was added so far; of a full server, which cannot grow, from what led there."""
        if not self._views:
            return Outlook()
        latest = self._views[-1]
        if latest.is_full:
            return self._before_full
        per_minute = {}
        for name in latest.applications:
            floors = floor([(view.time, _held(view, name)) for view in self._views])
            if floors and floors[-1][0] - floors[0][0] >= _FIRST_SLOPE:
                per_minute[name] = 60 * slope(floors)
        leaking = sum(
            growth for name, growth in per_minute.items() if growth > 0 and latest.applications[name].suspected
        )
        used = min(view.used for view in self._views if view.time >= latest.time - FLOOR_WINDOW)
        full_at = latest.time + 60 * (latest.usable - used) / leaking if leaking >= 1 else None
        self._before_full = Outlook(per_minute, full_at)
        return self._before_full


def _held(view: View, name: str) -> int:
    application = view.applications.get(name)
    return application.connections if application else 0
