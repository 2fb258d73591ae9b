"""A connection is detached from its pool to outlive the request, and nobody closes it."""

from __future__ import annotations

from sqlalchemy import Connection, create_engine, text
from stage import DSN, main, turns

engine = create_engine(DSN)
streams: dict[int, Connection] = {}


def open_stream(client: int) -> Connection:
    connection = engine.connect()  # LEAK
    connection.detach()
    connection.execute(text("SELECT 1"))
    streams[client] = connection
    return connection


def close_stream(client: int) -> None:
    streams.pop(client).close()


def buggy() -> None:
    for client in range(3):
        open_stream(client)


def healthy() -> None:
    for client in turns():
        open_stream(client)
        close_stream(client)


if __name__ == "__main__":
    main(buggy, healthy)
