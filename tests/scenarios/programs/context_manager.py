"""Jobs take their connections through a context manager of their own, and wait for something else while they hold one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, text
from stage import DSN, ended, main, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

engine = create_engine(DSN)


@contextmanager
def database() -> Iterator[Connection]:
    with engine.connect() as connection:  # LEAK
        yield connection


def job() -> None:
    with database() as connection:
        connection.execute(text("SELECT 1"))
        ended.wait()  # STANDS


def job_in_short_transactions() -> None:
    while not ended.is_set():
        with database() as connection:
            connection.execute(text("SELECT 1"))
        ended.wait(0.02)


def buggy() -> None:
    for _ in range(3):
        start(job)


def healthy() -> None:
    for _ in range(3):
        start(job_in_short_transactions)


if __name__ == "__main__":
    main(buggy, healthy)
