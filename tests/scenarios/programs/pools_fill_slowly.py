"""Three workers with pools of five fill them as the load grows: fifteen connections, each of them in use."""

from __future__ import annotations

import os
import signal
import threading
import time

from sqlalchemy import create_engine, text
from stage import DSN, ended, main, start, turns

WORKERS = 3
POOL_SIZE = 5


def work() -> None:
    engine = create_engine(DSN, pool_size=POOL_SIZE, max_overflow=0)
    all_at_once = [threading.Barrier(size, timeout=5) for size in range(1, POOL_SIZE + 1)]

    def request(size: int) -> None:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            all_at_once[size - 1].wait()

    for turn in turns(0.05):
        size = min(1 + turn // 5, POOL_SIZE)
        threads = [threading.Thread(target=request, args=(size,)) for _ in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def healthy() -> None:
    workers = []
    for _ in range(WORKERS):
        worker = os.fork()
        if worker == 0:
            start(_end_with_the_master, os.getppid())
            work()
            os._exit(0)
        workers.append(worker)
    ended.wait()
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
        os.waitpid(worker, 0)


def _end_with_the_master(master: int) -> None:
    while os.getppid() == master:
        time.sleep(0.1)
    os._exit(0)


if __name__ == "__main__":
    main(healthy)
