"""What a watched pool keeps: bytes per held connection, and the growth of the process over 1,000,000 checkouts.

    python benchmarks/checkout_memory.py

On the demo's embedded PostgreSQL. Counted are the bytes that pgleak's own code allocated.
"""

from __future__ import annotations

import gc
import resource
import sys
import tracemalloc
from typing import TYPE_CHECKING

from sqlalchemy import create_engine

from pgleak.demo.embedded import EmbeddedPostgres
from pgleak.pool import api

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

HELD = 50
CHECKOUTS = 1_000_000


def held_bytes(engine: Engine) -> tuple[float, int]:
    """Bytes for each connection while it is out, and from connect to close."""
    for connection in [engine.raw_connection() for _ in range(HELD)]:
        connection.close()
    ours = [tracemalloc.Filter(inclusive=True, filename_pattern="*/pgleak/*")]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.take_snapshot().filter_traces(ours)
    connections = [engine.raw_connection() for _ in range(HELD)]
    after = tracemalloc.take_snapshot().filter_traces(ours)
    tracemalloc.stop()
    for connection in connections:
        connection.close()
    (ledger,) = api.LEDGER.pools.values()
    held = sum(each.size_diff for each in after.compare_to(before, "filename"))
    return held / HELD, sys.getsizeof(next(iter(ledger.connections.values())))


def growth(engine: Engine) -> int:
    """Bytes by which the process grew over so many checkouts, after a warm-up."""
    for _ in range(20_000):
        engine.raw_connection().close()
    gc.collect()
    start = resident()
    for _ in range(CHECKOUTS):
        engine.raw_connection().close()
    gc.collect()
    return resident() - start


def resident() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    with EmbeddedPostgres(16) as server:
        engine = create_engine(f"postgresql+psycopg2://postgres@127.0.0.1:{server.port}/postgres", pool_size=HELD)
        api.instrument(engine)
        out, followed = held_bytes(engine)
        print(f"held connection: {out:.0f} bytes while out, and {followed} bytes from connect to close")
        print(f"{CHECKOUTS:,} checkouts: the process grew by {growth(engine) // 1024} KiB")
        api.uninstrument(engine)
        engine.dispose()


if __name__ == "__main__":
    main()
