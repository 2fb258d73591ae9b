"""A loop removes its session at the end of each turn, but the error path goes straight back to waiting."""

from __future__ import annotations

import logging
import queue

from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker
from stage import DSN, main, start, turns

engine = create_engine(DSN)
Session = scoped_session(sessionmaker(engine))
jobs: queue.Queue[str] = queue.Queue()
log = logging.getLogger(__name__)


def run_forever() -> None:
    while True:
        job = jobs.get()  # STANDS
        try:
            Session.execute(text("SELECT :job"), {"job": job})  # LEAK
            int(job)
        except ValueError:
            log.warning("job %r is not a number", job)
            continue
        Session.remove()


def run_forever_and_remove() -> None:
    while True:
        job = jobs.get()
        try:
            Session.execute(text("SELECT :job"), {"job": job})
            int(job)
        except ValueError:
            log.debug("job %r is not a number", job)
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
