"""A loop that lives on polls in one transaction and sleeps while it holds it."""

from __future__ import annotations

import time

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from stage import DSN, ended, main, start

engine = create_engine(DSN)


def poll() -> None:
    with Session(engine) as session:
        while not ended.is_set():
            session.execute(text("SELECT 1"))  # LEAK
            time.sleep(0.5)  # STANDS


def poll_in_short_transactions() -> None:
    while not ended.is_set():
        with Session(engine) as session:
            session.execute(text("SELECT 1"))
        time.sleep(0.02)


def buggy() -> None:
    for _ in range(3):
        start(poll)


def healthy() -> None:
    for _ in range(3):
        start(poll_in_short_transactions)


if __name__ == "__main__":
    main(buggy, healthy)
