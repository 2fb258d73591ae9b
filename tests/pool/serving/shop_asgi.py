"""The same shop on FastAPI with an asynchronous engine, as uvicorn and gunicorn's uvicorn worker load it."""

from __future__ import annotations

import os

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import pgleak.pool.api as pgleak
from pgleak.pool import statefile
from pgleak.pool.collector import PoolCollector

statefile.INTERVAL = 0.2

engine = create_async_engine(os.environ["SHOP_DSN"].replace("+psycopg2", "+psycopg"), pool_size=3)
pgleak.instrument(engine, name="shop")
registry = CollectorRegistry()
registry.register(PoolCollector())
kept: list[AsyncSession] = []

app = FastAPI(default_response_class=PlainTextResponse)


@app.get("/order")
async def order() -> str:
    async with AsyncSession(engine) as session:
        return str(await session.scalar(text("SELECT pg_backend_pid()")))


@app.get("/leak")
async def leak() -> str:
    session = AsyncSession(engine)
    kept.append(session)
    return str(await session.scalar(text("SELECT pg_backend_pid()")))


@app.get("/pid")
async def pid() -> str:
    return str(os.getpid())


@app.get("/metrics")
async def metrics() -> str:
    return generate_latest(registry).decode()
