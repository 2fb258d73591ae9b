"""Thread-local sessions in a server whose threads outlive the requests, and nothing removes them at a request's end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker
from stage import DSN, main, turns

engine = create_engine(DSN)
Session = scoped_session(sessionmaker(engine))


def application() -> Flask:
    app = Flask(__name__)

    @app.get("/orders/<int:number>")
    def order(number: int) -> str:
        return str(Session.scalar(text("SELECT :number"), {"number": number}))  # LEAK

    return app


def application_with_teardown() -> Flask:
    app = application()

    @app.teardown_appcontext
    def remove(_error: BaseException | None) -> None:
        Session.remove()

    return app


def application_with_flask_sqlalchemy() -> Flask:
    """Its session is scoped to the application context of the request, and removed with it."""
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = DSN
    database = SQLAlchemy(app)

    @app.get("/orders/<int:number>")
    def order(number: int) -> str:
        return str(database.session.scalar(text("SELECT :number"), {"number": number}))

    return app


def serve(app: Flask, requests: int | None = None) -> ThreadPoolExecutor:
    """What a server with a pool of four threads does."""
    threads = ThreadPoolExecutor(4, thread_name_prefix="server")

    def request(number: int) -> None:
        app.test_client().get(f"/orders/{number}")

    for number in range(requests) if requests else turns():
        threads.submit(request, number)
    return threads


def buggy() -> ThreadPoolExecutor:
    return serve(application(), 40)


def healthy() -> ThreadPoolExecutor:
    return serve(application_with_teardown())


def healthy_scope() -> ThreadPoolExecutor:
    return serve(application_with_flask_sqlalchemy())


if __name__ == "__main__":
    main(buggy, healthy, healthy_scope)
