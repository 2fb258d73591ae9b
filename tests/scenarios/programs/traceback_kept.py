"""Failures are kept for a status page, and with each its traceback, the frames in it and the connections in those."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import create_engine, text
from stage import DSN, main, turns

if TYPE_CHECKING:
    from collections.abc import Callable

engine = create_engine(DSN)
failures: list[Exception] = []


def transfer(amount: str) -> int:
    connection = engine.connect()  # LEAK
    booked = int(connection.scalar(text("SELECT :amount"), {"amount": amount}))
    connection.close()
    return booked


def transfer_with_block(amount: str) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT :amount"), {"amount": amount}))


def handle(book: Callable[[str], int], amount: str) -> None:
    try:
        book(amount)
    except ValueError as error:
        failures.append(error)
        del failures[:-50]


def buggy() -> None:
    for amount in ["10", "ten", "20", "twenty", "thirty"]:
        handle(transfer, amount)


def healthy() -> None:
    for turn in turns():
        handle(transfer_with_block, "ten" if turn % 3 else "10")


if __name__ == "__main__":
    main(buggy, healthy)
