"""Asynchronous leaks beside their healthy twins. Each test with a line marked LEAK must be told of it, no other."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

URL = os.environ["DATABASE_URL"]
SELECT = text("SELECT 1")
kept: list[Any] = []

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def async_engine() -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(URL)
    yield made
    for task in kept:
        if isinstance(task, asyncio.Task):
            task.cancel()
    await made.dispose()


async def test_session_closed(async_engine: AsyncEngine) -> None:
    async with AsyncSession(async_engine) as session:
        await session.execute(SELECT)


async def test_session_kept(async_engine: AsyncEngine) -> None:
    session = AsyncSession(async_engine)
    kept.append(session)
    await session.execute(SELECT)  # LEAK


async def test_connection_dropped(async_engine: AsyncEngine) -> None:
    connection = await async_engine.connect()  # LEAK
    await connection.execute(SELECT)


async def test_task_goes_on(async_engine: AsyncEngine) -> None:
    held = asyncio.Event()

    async def work() -> None:
        async with async_engine.connect():  # LEAK
            held.set()
            await asyncio.sleep(60)

    kept.append(asyncio.create_task(work(), name="shipper"))
    await held.wait()


async def test_task_ends(async_engine: AsyncEngine) -> None:
    async def work() -> None:
        async with async_engine.connect() as connection:
            await connection.execute(SELECT)

    await asyncio.gather(work(), work())


async def test_engine_not_disposed() -> None:
    engine = create_async_engine(URL)  # LEAK
    kept.append(engine)
    async with engine.connect() as connection:
        await connection.execute(SELECT)


async def test_engine_disposed() -> None:
    engine = create_async_engine(URL)
    async with engine.connect() as connection:
        await connection.execute(SELECT)
    await engine.dispose()


@pytest_asyncio.fixture(loop_scope="module")
async def connection(async_engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with async_engine.connect() as made:
        yield made


async def test_fixture_closes_after_the_test(connection: AsyncConnection) -> None:
    await connection.execute(SELECT)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_session(async_engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(async_engine) as made:
        yield made


async def test_module_session_begins_in_a_test(module_session: AsyncSession) -> None:
    await module_session.execute(SELECT)
