"""New connections get their application_name where a dialect opens them.

SQLAlchemy's event for it, `do_connect`, will not do: with one listener there, SQLAlchemy looks for listeners at every
statement, and every statement pays for it. What a listener of the user's there has changed is seen here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from pgleak.pool import drivers

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from pgleak.pool.ledger import WatchedEngine

_METHOD = "connect"


def install(watched: WatchedEngine, engine: Engine) -> None:
    """Wrap the `connect` of this engine's dialect, which its pools open connections with."""
    dialect: Any = engine.dialect
    driver: str = dialect.driver
    inner = vars(dialect).get(_METHOD)  # somebody else's wrapper
    kind, this = type(dialect), ref(dialect)  # a bound method would keep the dialect alive until a collection

    def connect(*positional: Any, **parameters: Any) -> Any:
        if watched.names_connections:
            try:
                drivers.name_connection(driver, positional, parameters, watched.application_name)
            except Exception:  # noqa: BLE001 - a connection without a name is better than none
                watched.ledger.errors += 1
        if inner is not None:
            return inner(*positional, **parameters)
        return kind.connect(this(), *positional, **parameters)

    connect.__wrapped__ = inner  # type: ignore[attr-defined]
    connect.pgleak = watched  # type: ignore[attr-defined]
    watched.names_connections = True
    setattr(dialect, _METHOD, connect)


def remove(watched: WatchedEngine, engine: Engine) -> None:
    """The dialect is as it was; where somebody wrapped it meanwhile, ours stays beneath and does nothing."""
    watched.names_connections = False
    dialect: Any = engine.dialect
    outermost = vars(dialect).get(_METHOD)
    code = getattr(outermost, "__code__", None)  # functools.wraps gives another wrapper ours' attributes, not its code
    if getattr(outermost, "pgleak", None) is not watched or code is None or code.co_filename != __file__:
        return
    inner = outermost.__wrapped__
    if inner is None:
        delattr(dialect, _METHOD)
    else:
        setattr(dialect, _METHOD, inner)
