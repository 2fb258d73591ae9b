"""A Flask application as gunicorn loads it; what is particular about it are its leaks on demand."""

from __future__ import annotations

import os

from flask import Flask, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

import pgleak.pool.api as pgleak
from pgleak.pool import statefile
from pgleak.pool.collector import PoolCollector

statefile.INTERVAL = 0.2

engine = create_engine(os.environ["SHOP_DSN"], pool_size=3)
pgleak.instrument(engine, name="shop")
registry = CollectorRegistry()
registry.register(PoolCollector())
kept: list[Session] = []

app = Flask(__name__)


@app.get("/order")
def order() -> str:
    with Session(engine) as session:
        return str(session.scalar(text("SELECT pg_backend_pid()")))


@app.get("/leak")
def leak() -> str:
    session = Session(engine)
    kept.append(session)
    return str(session.scalar(text("SELECT pg_backend_pid()")))


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())


@app.get("/metrics")
def metrics() -> Response:
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
