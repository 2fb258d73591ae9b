"""What is wrong with a file that a person wrote, and what to do about it; for all files alike."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it stands and what is allowed there."""

    path: str
    message: str
    value: str = ""  # what was found, as it may be shown
    line: int = 0  # 0 where no line can be named

    def __str__(self) -> str:
        line = f" (line {self.line})" if self.line else ""
        found = f"; got {self.value}" if self.value else ""
        return f"{self.path}{line}: {self.message}{found}" if self.path else f"{self.message}{line}{found}"


def nearest(key: str, keys: Collection[str]) -> str:
    """Return the key that was probably meant; empty where none is near."""
    return next(iter(difflib.get_close_matches(key, keys, n=1)), "")


def unknown_key(key: str, keys: Collection[str], elsewhere: Mapping[str, Collection[str]] | None = None) -> str:
    """Say that a key is not known, with the nearest one that is, or all of them.

    `elsewhere` are the keys of other places: one that belongs there is told so.
    """
    places = (elsewhere or {}).items()
    home = next((place for place, known in places if key in known), "")
    if home:
        return f"unknown key; it belongs {home}"
    near = nearest(key, keys) or next(
        (f"{found} {place}" for place, known in places if (found := nearest(key, known))), ""
    )
    return f"unknown key; did you mean {near}?" if near else f"unknown key; the keys here are {', '.join(keys)}"
