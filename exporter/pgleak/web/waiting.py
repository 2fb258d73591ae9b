"""Who may wait for a server to be read: so many for each page, so that one server that hangs costs no other its askers."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

_ALL = 128  # of 256 connections: the others are for those who do not wait, such as a health check
_RESERVE = 64  # more, for the first asker of each page
_EACH = 32  # enough for every Prometheus that there may be; whoever asks more often is not helped by waiting


class Waiting:
    """Counts the askers of each page. Thread-safe."""

    def __init__(self) -> None:
        self._askers: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def place(self, page: Hashable) -> Iterator[bool]:
        """Hold a place while the block lasts; False where there is none, and the asker has to come again."""
        admitted = self._take(page)
        try:
            yield admitted
        finally:
            if admitted:
                self._give_back(page)

    def _take(self, page: Hashable) -> bool:
        with self._lock:
            mine, all_of_them = self._askers[page], self._askers.total()
            admitted = mine < _EACH and all_of_them < (_ALL if mine else _ALL + _RESERVE)
            if admitted:
                self._askers[page] += 1
            elif not mine:
                del self._askers[page]
            return admitted

    def _give_back(self, page: Hashable) -> None:
        with self._lock:
            self._askers[page] -= 1
            if not self._askers[page]:
                del self._askers[page]
