"""Eight threads share a pool of two: they wait, some of them in vain, and nothing leaks."""

from __future__ import annotations

import contextlib

from sqlalchemy import create_engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from stage import DSN, main, start, turns

engine = create_engine(DSN, pool_size=2, max_overflow=0, pool_timeout=0.1)


def request() -> None:
    for _ in turns(0.001):
        with contextlib.suppress(PoolTimeoutError), engine.connect() as connection:  # a 503
            connection.execute(text("SELECT pg_sleep(0.05)"))


def healthy() -> None:
    for _ in range(8):
        start(request)


if __name__ == "__main__":
    main(healthy)
