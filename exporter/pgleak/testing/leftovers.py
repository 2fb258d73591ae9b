"""What was taken and not given back, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgleak.pool.snapshot import Frame, Owner, Place

Kind: TypeAlias = Literal["connection", "session", "engine"]


@dataclass(frozen=True, slots=True)
class Leftover:
    """A connection that is still checked out, on its own or by a session; or an engine that keeps connections open."""

    kind: Kind
    number: int  # the ledger's, in the order in which things were taken
    pool: str
    frames: tuple[Frame, ...]  # the code that took it, the innermost first
    place: Place = "pool"
    owner: Owner | None = None  # None for an engine
    standing: tuple[Frame, ...] = ()  # where a living owner stands now
    is_mine: bool = True  # the owner is the thread that runs the tests
    connections: int = 0  # open, of an engine
    is_async: bool = False
    unsaved: str = ""  # what a session has in it that was never committed
    collected: bool = False  # by now the garbage collector has given it back
    keeper: tuple[str, ...] = ()  # what keeps it from being collected, the nearest first

    @property
    def is_of_an_import(self) -> bool:
        """Whether it is an engine that a module made while it was being imported: that one belongs to the process."""
        return self.kind == "engine" and any(frame.function == "<module>" for frame in self.frames)

    def is_allowed(self, patterns: Iterable[str]) -> bool:
        """Whether one of the patterns names this kind or a place on the way to it."""
        names = (self.kind, *(frame.site for frame in self.frames))
        return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)
