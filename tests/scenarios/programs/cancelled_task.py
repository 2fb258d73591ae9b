"""A task is cancelled by a timeout while it holds its session, and nothing closes that."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from stage import ASYNC_DSN, ended, main

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

engine = create_async_engine(ASYNC_DSN)
in_use: dict[int, AsyncSession] = {}


async def ask_the_bank(account: int) -> None:
    await asyncio.sleep(60 if account % 2 else 0.005)


async def balance(account: int) -> None:
    session = in_use[account] = AsyncSession(engine)
    await session.execute(text("SELECT :account"), {"account": account})  # LEAK
    await ask_the_bank(account)
    await in_use.pop(account).close()


async def balance_with_block(account: int) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT :account"), {"account": account})
        await ask_the_bank(account)


async def warm_up() -> None:
    """Opening a connection may take longer than a request may, on a busy machine."""
    for connection in [await engine.connect() for _ in range(5)]:
        await connection.close()


async def serve(accounts: int | None, handle: Callable[[int], Coroutine[None, None, None]]) -> None:
    await warm_up()
    account = 0
    while not ended.is_set():
        if accounts is None or account < accounts:
            with contextlib.suppress(asyncio.TimeoutError):
                request = asyncio.create_task(handle(account))  # as a server does
                await asyncio.wait_for(request, 0.3)
        await asyncio.sleep(0.01)
        account += 1


def buggy() -> None:
    asyncio.run(serve(6, balance))


def healthy() -> None:
    asyncio.run(serve(None, balance_with_block))


if __name__ == "__main__":
    main(buggy, healthy)
