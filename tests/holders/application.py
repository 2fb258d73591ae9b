"""A process that reports its pool: application.py DSN HOLDING... ends with standard input.

Each HOLDING is a connection that the process has from then on: pooled, in_use, overdue, owner_dead, orphaned, or dropped,
which the garbage collector has given back.
"""

from __future__ import annotations

import gc
import sys
import threading
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

import pgleak.pool.api as pgleak
from pgleak.pool import statefile
from pgleak.pool.snapshot import Limits

if TYPE_CHECKING:
    from sqlalchemy import Connection

kept: list[Connection] = []


def take() -> None:
    connection = engine.connect()  # TAKEN
    connection.execute(text("SELECT 1"))
    kept.append(connection)


if __name__ == "__main__":
    statefile.INTERVAL = 0.2
    dsn, *holdings = sys.argv[1:]
    overdue = 0.5 if "overdue" in holdings else 3600.0
    limits = Limits(dead_owner=0.2, alive_owner=overdue, unproven_site=overdue)
    pgleak.instrument(limits=limits)
    engine = create_engine(dsn, pool_size=len(holdings) + 1)
    for holding in holdings:
        if holding == "owner_dead":
            thread = threading.Thread(target=take)
            thread.start()
            thread.join()
        else:
            take()
        if holding in {"pooled", "dropped"}:  # the next one takes it again, so this comes last
            if holding == "pooled":
                kept[-1].close()
            del kept[-1]
            gc.collect()
    if "orphaned" in holdings:
        engine.dispose()
        kept.append(create_engine(dsn, poolclass=NullPool).connect())  # somebody who is in use
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
