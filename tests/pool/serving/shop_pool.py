"""The shop's nightly batch: plain multiprocessing workers, replaced when they die. Usage: shop_pool.py METHOD"""

from __future__ import annotations

import multiprocessing
import os
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


def work() -> None:
    kept = Session(engine)
    kept.execute(text("SELECT 1"))
    while True:
        with Session(engine) as session:
            session.execute(text("SELECT 1"))
        time.sleep(0.02)


if __name__ == "__main__":
    context: Any = multiprocessing.get_context(sys.argv[1])
    workers = [context.Process(target=work, daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    while True:
        for worker in [worker for worker in workers if not worker.is_alive()]:
            workers.remove(worker)
            workers.append(context.Process(target=work, daemon=True))
            workers[-1].start()
        time.sleep(0.1)
