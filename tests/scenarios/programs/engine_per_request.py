"""Each request makes an engine of its own; its pool keeps one connection open that nobody will use again."""

from __future__ import annotations

from sqlalchemy import create_engine, text
from stage import DSN, main, turns


class Repository:
    def __init__(self) -> None:
        self.engine = create_engine(DSN)  # LEAK

    def order(self, number: int) -> object:
        with self.engine.connect() as connection:
            return connection.scalar(text("SELECT :number"), {"number": number})


repositories: dict[int, Repository] = {}


def handle(request: int) -> object:
    repositories[request] = Repository()
    repositories[request].order(request)
    return repositories[request].order(request + 1)  # a request may well ask twice


shared = create_engine(DSN)


def handle_with_the_shared_engine(request: int) -> object:
    with shared.connect() as connection:
        return connection.scalar(text("SELECT :number"), {"number": request})


def buggy() -> None:
    for request in turns(0.1):
        if request < 12:
            handle(request)


def healthy() -> None:
    for request in turns():
        handle_with_the_shared_engine(request)


if __name__ == "__main__":
    main(buggy, healthy)
