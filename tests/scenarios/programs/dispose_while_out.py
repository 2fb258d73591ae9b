"""The engine is disposed to take up new credentials while subscribers hold connections of the old pool."""

from __future__ import annotations

import threading

from sqlalchemy import Connection, create_engine, text
from stage import DSN, main, turns

engine = create_engine(DSN)


class Subscriber:
    def __init__(self) -> None:
        self.connection: Connection = engine.connect()  # LEAK
        self.connection.execute(text("SELECT 1"))

    def close(self) -> None:
        self.connection.close()


def reload_credentials() -> None:
    engine.dispose()


def buggy() -> list[Subscriber]:
    subscribers = []
    for _ in range(3):
        subscribers.append(Subscriber())
        reload_credentials()
    return subscribers


def healthy() -> None:
    busy = threading.Lock()
    for turn in turns():
        with busy:
            subscriber = Subscriber()
            subscriber.close()
            if turn % 20 == 19:
                reload_credentials()


if __name__ == "__main__":
    main(buggy, healthy)
