"""No code at all: `postgresql://.../database?plugin=pgleak` watches the engine made from that URL."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import CreateEnginePlugin
from sqlalchemy.exc import ArgumentError

from pgleak.pool.api import instrument, remember_origin
from pgleak.pool.ledger import LEDGER

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine

_OPTIONS = {"pgleak_name": "name", "pgleak_application_name": "application_name"}


class PgleakPlugin(CreateEnginePlugin):
    """Loaded by SQLAlchemy. `pgleak_name` and `pgleak_application_name` in the URL are what `instrument` takes.

    Raises ArgumentError for an option like these: the driver would refuse it at the first connection, and not say whose.
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        for key in url.query:
            if key.startswith("pgleak_") and key not in _OPTIONS:
                raise ArgumentError(f"{key} in the database URL: unknown; pgleak takes {' and '.join(_OPTIONS)}")
        self._options: dict[str, Any] = {
            option: value for key, option in _OPTIONS.items() if isinstance(value := url.query.get(key), str)
        }

    def update_url(self, url: URL) -> URL:
        return url.difference_update_query(list(_OPTIONS))

    def engine_created(self, engine: Engine) -> None:
        try:
            instrument(engine, **self._options)
            remember_origin(engine, sys._getframe(1))  # noqa: SLF001 - documented
        except Exception:  # noqa: BLE001 - the application gets its engine whatever happens here
            LEDGER.errors += 1
