"""A streamed response reads from its session as it is sent: a client that reads slowly holds the connection."""

from __future__ import annotations

import socket
import urllib.request
from typing import TYPE_CHECKING

from flask import Flask, Response
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from stage import DSN, main, start, turns
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from collections.abc import Iterator

engine = create_engine(DSN)
rows = text("SELECT repeat('x', 1000) FROM generate_series(1, 20000)").execution_options(yield_per=100)
few_rows = text("SELECT repeat('x', 1000) FROM generate_series(1, 50)")
app = Flask(__name__)


@app.get("/export")
def export() -> Response:
    def lines() -> Iterator[str]:
        session = Session(engine)
        for row in session.execute(rows):  # LEAK
            yield f"{row[0]}\n"
        session.close()

    return Response(lines())


@app.get("/pages")
def pages() -> Response:
    def lines() -> Iterator[str]:
        for _ in range(3):
            with Session(engine) as session:
                page = session.execute(few_rows).all()
            yield from (f"{row[0]}\n" for row in page)

    return Response(lines())


def serve() -> int:
    """Start a server on a free port; the port."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    start(server.serve_forever)
    return int(server.server_port)


def buggy() -> list[socket.socket]:
    port = serve()
    clients = []
    for _ in range(3):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"GET /export HTTP/1.0\r\n\r\n")
        client.recv(100)
        clients.append(client)  # connected, but reads no further
    return clients


def healthy() -> None:
    port = serve()
    for _ in turns():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/pages", timeout=5) as response:
            response.read()


if __name__ == "__main__":
    main(buggy, healthy)
