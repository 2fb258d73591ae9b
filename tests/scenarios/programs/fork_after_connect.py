"""A master connects and forks its worker, which goes on with the engine it inherited: two processes on one socket."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, text
from stage import DSN, ended, main, turns, watch

if TYPE_CHECKING:
    from collections.abc import Callable

engine = create_engine(DSN)


def warm_up() -> None:
    """What the master does while it loads the application."""
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))


def work() -> None:
    for _ in turns(0.001):
        with engine.connect() as connection:  # LEAK
            connection.execute(text("SELECT pg_sleep(0.05)"))


def work_with_a_clean_engine() -> None:
    engine.dispose(close=False)
    work()


def fork(run: Callable[[], None]) -> None:
    worker = os.fork()
    if worker == 0:
        watch()
        run()
        os._exit(0)
    ended.wait()
    os.kill(worker, signal.SIGTERM)
    os.waitpid(worker, 0)


def buggy() -> None:
    warm_up()
    fork(work)


def healthy() -> None:
    warm_up()
    fork(work_with_a_clean_engine)


if __name__ == "__main__":
    main(buggy, healthy)
