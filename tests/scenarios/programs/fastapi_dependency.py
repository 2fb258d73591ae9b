"""A FastAPI dependency yields its session and closes it after; when the endpoint raises, there is no after."""

from __future__ import annotations

import logging
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker
from stage import DSN, main, start, turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

engine = create_engine(DSN)
sessions = sessionmaker(engine)


def session_without_finally() -> Iterator[Session]:
    session = sessions()
    yield session
    session.close()


def session_with_finally() -> Iterator[Session]:
    session = sessions()
    try:
        yield session
    finally:
        session.close()


def application(dependency: Callable[[], Iterator[Session]]) -> FastAPI:
    app = FastAPI()

    @app.get("/orders/{number}")
    def order(number: int, session: Session = Depends(dependency)) -> int:  # noqa: B008  FastAPI's way
        found = session.scalar(text("SELECT :number"), {"number": number})  # LEAK
        if number % 2:
            raise HTTPException(404)
        return int(found)

    return app


def serve(app: FastAPI) -> str:
    """Start a server on a free port; its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    start(server.run)
    while not server.started:
        threading.Event().wait(0.01)
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/orders/"


def get(address: str) -> None:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except urllib.error.HTTPError as error:
        logging.getLogger(__name__).debug("%s", error)


def buggy() -> None:
    address = serve(application(session_without_finally))
    for number in range(6):
        get(f"{address}{number}")


def healthy() -> None:
    address = serve(application(session_with_finally))
    for number in turns():
        get(f"{address}{number}")


if __name__ == "__main__":
    main(buggy, healthy)
