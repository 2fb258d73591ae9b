"""What the web server serves: the rest of pgleak as seen from HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import Metric

    from pgleak.who.history import Overview


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """What is known of one target from its last read. Holds nothing secret: every field may be shown."""

    name: str
    address: str
    up: bool | None = None  # None before the first read
    reason: str = ""  # why it is not up; empty when it is
    age: float | None = None  # seconds since the last read; None before the first


class Site(Protocol):
    """The source of everything that is served. Called from many threads at once."""

    def families(self, deadline: float, target: str | None = None) -> Iterable[Metric]:
        """Reads one target, or all of them, and never raises. ``deadline`` is a moment of the server's clock."""

    def targets(self) -> Sequence[str]:
        """The names of the targets, in the order of the settings."""

    def statuses(self) -> Sequence[TargetStatus]:
        """How the targets are; one that was not read lately may be read now, within a moment."""

    def overview(self) -> Overview | None:
        """Who holds what; None where the settings switch that off. May read as `statuses` does."""

    def ready(self) -> bool:
        """Whether a scrape is worth making."""
