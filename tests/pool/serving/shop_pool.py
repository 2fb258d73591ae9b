"""The shop's nightly batch: plain multiprocessing workers. Usage: shop_pool.py METHOD

Those that die are replaced; all are, one generation by the next, for each line on standard input.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import sys
import time
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

import pgleak.pool.api as pgleak
from pgleak.pool import statefile

statefile.INTERVAL = 0.2

engine = create_engine(os.environ["SHOP_DSN"], pool_size=3)
pgleak.instrument(engine, name="shop")


def work(ended: Any) -> None:
    kept = Session(engine)
    kept.execute(text("SELECT 1"))
    while not ended.is_set():
        with Session(engine) as session:
            session.execute(text("SELECT 1"))
        time.sleep(0.02)


if __name__ == "__main__":
    context: Any = multiprocessing.get_context(sys.argv[1])
    ended = context.Event()
    workers: list[Any] = []
    while True:
        workers = [worker for worker in workers if worker.is_alive()]
        while len(workers) < 2:
            workers.append(context.Process(target=work, args=(ended,), daemon=True))
            workers[-1].start()
        if select.select([sys.stdin], [], [], 0.1)[0] and sys.stdin.readline():
            ended.set()
            for worker in workers:
                worker.join()
            ended = context.Event()
