"""A process that reports its pool: application.py DSN HOLDING... ends with standard input.

Each HOLDING is a connection that the process has from then on: pooled, in_use, overdue, owner_dead, orphaned, or dropped,
which the garbage collector has given back; at_work, overdue and used again and again by the function that took it; or
handed_on, by a thread that has ended to one that uses it again and again.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
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


def work() -> None:
    connection = engine.connect()
    while True:
        connection.execute(text("SELECT 1"))
        connection.commit()
        time.sleep(0.05)


def use(connection: Connection) -> None:
    while True:
        connection.execute(text("SELECT 1"))
        time.sleep(0.05)


if __name__ == "__main__":
    statefile.INTERVAL = 0.2
    dsn, *holdings = sys.argv[1:]
    overdue = 0.5 if "overdue" in holdings else 2.0 if "at_work" in holdings else 3600.0
    limits = Limits(dead_owner=0.2, alive_owner=overdue, unproven_site=overdue)
    pgleak.instrument(limits=limits)
    engine = create_engine(dsn, pool_size=len(holdings) + 1)
    for holding in holdings:
        if holding == "at_work":
            threading.Thread(target=work, daemon=True).start()
        elif holding in {"owner_dead", "handed_on"}:
            thread = threading.Thread(target=take)
            thread.start()
            thread.join()
            if holding == "handed_on":
                threading.Thread(target=use, args=kept[-1:], daemon=True).start()
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
