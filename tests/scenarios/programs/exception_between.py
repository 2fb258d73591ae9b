"""An exception between connect and close; the handler that logs it knows nothing of the connection."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, text
from stage import DSN, main, turns

if TYPE_CHECKING:
    from collections.abc import Callable

engine = create_engine(DSN)
log = logging.getLogger(__name__)


def price_of(article: str) -> int:
    connection = engine.connect()  # LEAK
    text_price = connection.scalar(text("SELECT :article"), {"article": article})
    price = int(text_price)
    connection.close()
    return price


def price_of_with_block(article: str) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT :article"), {"article": article}))


def handle(price: Callable[[str], int], article: str) -> None:
    try:
        price(article)
    except ValueError:
        log.debug("no price for %s", article)


def buggy() -> None:
    for article in ["1", "2", "none", "3", "none", "none"]:
        handle(price_of, article)


def healthy() -> None:
    for turn in turns():
        handle(price_of_with_block, "none" if turn % 3 else "1")


if __name__ == "__main__":
    main(buggy, healthy)
