"""A loop calls a handler that removes its session at the end, but not where it returns early."""

from __future__ import annotations

import queue

from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker
from stage import DSN, main, start, turns

engine = create_engine(DSN)
Session = scoped_session(sessionmaker(engine))
jobs: queue.Queue[str] = queue.Queue()


def handle(job: str) -> None:
    Session.execute(text("SELECT :job"), {"job": job})  # LEAK
    if not job.isdigit():
        return
    Session.remove()


def run_forever() -> None:
    while True:
        job = jobs.get()  # STANDS
        handle(job)


def run_forever_and_remove() -> None:
    while True:
        job = jobs.get()
        try:
            handle(job)
        finally:
            Session.remove()


def buggy() -> None:
    start(run_forever)
    for job in [*map(str, range(30)), "poison"]:
        jobs.put(job)


def healthy() -> None:
    start(run_forever_and_remove)
    for job in turns():
        jobs.put("poison" if job % 10 == 0 else str(job))


if __name__ == "__main__":
    main(buggy, healthy)
