"""Faults of pgleak itself in the log: each once, by where it happened and without its message, which could quote a value."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

_MOST = 100  # remembered


class Faults:
    """Speaks of each fault when it is first met. Safe for concurrent use: at worst, one is told twice."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._told: set[str] = set()

    def tell(self, what: str, error: Exception) -> None:
        """Log what came of a fault, its kind and its frames, unless that was done before."""
        frames = "".join(traceback.format_tb(error.__traceback__))
        kind = f"{what} {frames}"
        if kind in self._told:
            return
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told.add(kind)
        self._log.error("%s: internal error (%s), please report it:\n%s", what, type(error).__name__, frames)
