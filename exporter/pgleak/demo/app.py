"""The application of the demo: a small shop on Flask and SQLAlchemy that leaks connections. Find the line.

It is written as many programs are. Each request gives its session back in ``teardown_request``, and so does each
turn of the loop in the background at its end. Nearly each.
"""

from __future__ import annotations

import itertools
import os
import threading
import time

from flask import Flask, Response, jsonify
from sqlalchemy import create_engine, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, scoped_session, sessionmaker
from werkzeug.serving import WSGIRequestHandler, make_server

import pgleak

engine = create_engine(
    os.environ["DATABASE_URL"],
    pool_size=5,
    max_overflow=-1,  # as many as it takes: the server is the limit
    connect_args={"application_name": "shop"},
)
pgleak.instrument(engine, name="shop")  # what names the line; the leak needs no help
Session = scoped_session(sessionmaker(engine))  # one session for each thread
app = Flask("shop")


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(default="paid")


# --- what the shop's customers see ------------------------------------------------------------------------------


@app.get("/orders")
def show_orders() -> Response:
    return jsonify([order.id for order in Session.scalars(select(Order).order_by(Order.id.desc()).limit(10))])


@app.post("/orders")
def place_order() -> tuple[str, int]:
    Session.add(Order())
    Session.commit()
    return "thank you\n", 201


@app.get("/status")
def show_status() -> Response:
    return jsonify(failed_turns=len(failures), latest=str(failures[-1]) if failures else None)


@app.teardown_request
def give_back_session(_error: BaseException | None) -> None:
    Session.remove()


@app.errorhandler(OperationalError)
def apologise(_error: OperationalError) -> tuple[str, int]:
    return "the database takes no more connections\n", 503


# --- what the shop does in the background -----------------------------------------------------------------------

failures: list[Exception] = []  # for the status page


class CarrierError(Exception):
    """The carrier does not answer."""


def run_forever() -> None:
    """Ship orders, turn after turn. Each turn has a thread of its own, so that none can block the next."""
    while True:
        threading.Thread(target=take_turn, name="turn", daemon=True).start()
        time.sleep(0.5)


def take_turn() -> None:
    try:
        ship_next_order()
    except CarrierError as error:
        # The leak: this way out skips Session.remove(). The session would be collected with its thread if nothing
        # else held it, but the error in the list has a traceback, that has ship_next_order()'s frame, and that
        # has the session, in its transaction, on its connection.
        failures.append(error)
        return
    except OperationalError:
        pass  # the server is full; perhaps next time
    Session.remove()


def ship_next_order() -> None:
    session = Session()
    order = session.scalars(select(Order).where(Order.status == "paid").order_by(Order.id).limit(1)).first()
    if order is not None:
        call_carrier(order)
        order.status = "shipped"
        session.commit()


calls = itertools.count(1)


def call_carrier(order: Order) -> None:
    """Ask for the pick-up of an order. Every fourth call fails, as calls over a network do."""
    if next(calls) % 4 == 0:
        raise CarrierError(f"no answer about order {order.id}")


class QuietHandler(WSGIRequestHandler):
    def log(self, *_arguments: object) -> None:
        pass


def main() -> None:
    Base.metadata.create_all(engine)
    threading.Thread(target=run_forever, name="run_forever", daemon=True).start()
    make_server("127.0.0.1", int(os.environ["PORT"]), app, threaded=True, request_handler=QuietHandler).serve_forever()


if __name__ == "__main__":
    main()
