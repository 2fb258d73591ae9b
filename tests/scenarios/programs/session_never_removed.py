"""A consumer in a thread uses its thread's session for each job and never removes it."""

from __future__ import annotations

import queue

from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker
from stage import DSN, main, start, turns

engine = create_engine(DSN)
Session = scoped_session(sessionmaker(engine))
jobs: queue.Queue[int] = queue.Queue()


def consume() -> None:
    while True:
        job = jobs.get()  # STANDS
        Session.execute(text("SELECT :job"), {"job": job})  # LEAK


def consume_and_remove() -> None:
    while True:
        job = jobs.get()
        try:
            Session.execute(text("SELECT :job"), {"job": job})
        finally:
            Session.remove()


def buggy() -> None:
    for _ in range(3):
        start(consume)
    for job in range(30):
        jobs.put(job)


def healthy() -> None:
    for _ in range(3):
        start(consume_and_remove)
    for job in turns():
        jobs.put(job)


if __name__ == "__main__":
    main(buggy, healthy)
