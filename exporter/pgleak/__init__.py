"""pgleak catches PostgreSQL connection leaks while they are still small.

This package has two halves. ``pgleak serve`` watches servers from outside. In an application,
:func:`pgleak.instrument` watches SQLAlchemy's pools from inside and names the line of code that holds each connection.

Importing :mod:`pgleak` loads neither psycopg2 nor yaml, and SQLAlchemy only when one of the names below is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgleak.pool.api import instrument, is_instrumented, snapshot, uninstrument
    from pgleak.pool.collector import PoolCollector
    from pgleak.pool.marks import context, expected_hold, set_context
    from pgleak.pool.snapshot import Limits
    from pgleak.pool.suspects import Verdict

__version__ = "0.1.0"

__all__ = [
    "Limits",
    "PoolCollector",
    "Verdict",
    "context",
    "expected_hold",
    "instrument",
    "is_instrumented",
    "set_context",
    "snapshot",
    "uninstrument",
]

_HOMES = {
    "api": ("instrument", "is_instrumented", "snapshot", "uninstrument"),
    "collector": ("PoolCollector",),
    "marks": ("context", "expected_hold", "set_context"),
    "snapshot": ("Limits",),
    "suspects": ("Verdict",),
}
_HOME = {name: f"pgleak.pool.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    # On first use, so that the exporter, which is this package too, does not carry SQLAlchemy in its memory.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
