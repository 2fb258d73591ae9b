"""The recipes of docs/frameworks.md, run as they stand there: they serve, they report, and a suspect names what was served."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import time
import types
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from prometheus_client import REGISTRY
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from pgleak.pool import api, marks
from pgleak.pool.monitor import describe
from pgleak.pool.snapshot import Limits
from pgleak.pool.suspects import judge
from pool_support import url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy.ext.asyncio import AsyncSession

    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.pool.snapshot import Checkout

DOCUMENT = Path(__file__).parents[2] / "docs" / "frameworks.md"
RECIPES = dict(re.findall(r"^```python (\S+)\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL))


@pytest.fixture
def recipe(postgres16: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Run a recipe as a module of its own."""
    address = f"postgres@127.0.0.1:{postgres16.port}/postgres"
    monkeypatch.setenv("DATABASE_URL", f"postgresql+psycopg2://{address}")
    monkeypatch.setenv("ASYNC_DATABASE_URL", f"postgresql+asyncpg://{address}")
    before = set(REGISTRY._collector_to_names)
    modules: list[types.ModuleType] = []

    def run(name: str) -> Any:
        module = types.ModuleType(f"recipe_{name.replace('-', '_')}")
        modules.append(module)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(RECIPES[name], f"{module.__name__}.py", "exec"), module.__dict__)
        return module

    yield run
    for collector in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(collector)
    marks.set_context(None)
    for module in modules:  # a framework keeps its applications, and with them the module's functions and their globals
        vars(module).clear()


def held() -> list[Checkout]:
    return [checkout for pool in api.snapshot().pools for checkout in pool.checkouts]


def assert_named(context: str) -> None:
    """The one connection that is held is reported with this context, in the snapshot and in the log line."""
    (verdict,) = judge(replace(api.snapshot(), limits=Limits(0, 0, 0, 0, 0)))
    assert verdict.checkout.context == context
    assert f"context={context!r}" in describe(verdict)
    assert verdict.checkout.site.endswith("leak")


def assert_shown(metrics: str, pool: str = "shop") -> None:
    assert re.search(rf'^sqlalchemy_pool_checkouts_total{{pool="{pool}"}} [1-9]', metrics, re.MULTILINE), metrics[
        -2000:
    ]


def test_every_recipe_of_the_document_is_run_here() -> None:
    assert set(RECIPES) == {"flask", "flask-sqlalchemy", "fastapi", "fastapi-async", "celery"}


@pytest.mark.parametrize("name", ["flask", "flask-sqlalchemy"])
def test_flask(recipe: Callable[[str], Any], name: str) -> None:
    module = recipe(name)
    kept = []

    def leak(number: int) -> str:
        kept.append(Session(module.engine if name == "flask" else module.db.engine))
        return str(kept[0].scalar(text("SELECT 1")))

    module.app.add_url_rule("/leak/<int:number>", view_func=leak)
    client = module.app.test_client()
    assert client.get("/orders/7").text == "7"
    assert not held()
    client.get("/leak/8")
    client.get("/orders/9")
    (pool,) = [pool.name for pool in api.snapshot().pools if pool.checkouts]  # others are of engines that are gone
    assert_shown(client.get("/metrics").text, pool)
    assert_named("GET /leak/<int:number>")
    assert marks.MARKS.get().context == ""
    kept.pop().close()


async def get(app: Any, path: str) -> str:
    """One request as an ASGI server makes it: in a task of its own."""
    sent: list[dict[str, Any]] = []

    requests = iter([1])

    async def receive() -> dict[str, Any]:
        if next(requests, None) is None:
            await asyncio.Event().wait()  # the client stays until the answer is whole
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
    }
    scope |= {"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": []}
    await asyncio.create_task(app(scope, receive, send))
    assert sent[0]["status"] == 200
    return b"".join(message.get("body", b"") for message in sent).decode()


def test_fastapi(recipe: Callable[[str], Any]) -> None:
    module = recipe("fastapi")
    kept: list[Session] = []

    def leak(number: int) -> str:
        kept.append(module.sessions())
        return str(kept[0].scalar(text("SELECT 1")))

    module.app.add_api_route("/leak/{number}", leak)

    async def story() -> None:
        assert await get(module.app, "/orders/7") == "7"
        assert not held()
        await get(module.app, "/leak/8")
        await get(module.app, "/orders/9")
        assert_shown(await get(module.app, "/metrics/"))

    asyncio.run(story())
    assert_named("GET /leak/{number}")
    kept.pop().close()


def test_a_request_outlives_the_thread_that_opened_its_session(
    postgres16: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A synchronous dependency of FastAPI is set up in one of anyio's threads and torn down in another one."""
    monkeypatch.setattr("anyio._backends._asyncio.WorkerThread.MAX_IDLE_TIME", 0)  # seconds; 10 as a rule
    engines = [create_engine(url(postgres16))]
    api.instrument(engines[0], limits=Limits(dead_owner=0))
    threads: list[threading.Thread] = []

    def session() -> Iterator[Session]:
        threads.append(threading.current_thread())
        with Session(engines[0]) as opened:
            opened.scalar(text("SELECT 1"))
            yield opened
        threads.append(threading.current_thread())

    app = FastAPI()

    @app.get("/")
    async def endpoint(_: Session = Depends(session)) -> list[str]:  # noqa: B008  FastAPI's way
        while threads[0].is_alive():  # two at once: one of them in a new thread, after which those that idle are ended
            await asyncio.gather(*(to_thread.run_sync(time.sleep, 0.01) for _ in range(2)))
        (checkout,) = held()
        return [checkout.owner.state, *(verdict.cause for verdict in judge(api.snapshot()))]

    assert asyncio.run(get(app, "/")) == '["unknown"]', "no suspect"
    assert len({*threads}) == 2
    engines.pop().dispose()  # and forget it: FastAPI remembers the dependency for good, and with it what it refers to


def _marked(mark: Callable[[], AbstractContextManager[None]]) -> FastAPI:
    app = FastAPI()

    def dependency() -> Iterator[int]:
        with mark():
            yield 1

    @app.get("/dependency")
    def depends(value: int = Depends(dependency)) -> int:
        return value

    @app.get("/stream")
    def stream() -> StreamingResponse:
        def rows() -> Iterator[str]:
            with mark():
                yield "1"
                yield "2"

        return StreamingResponse(rows())

    return app


@pytest.mark.parametrize(
    "mark",
    [lambda: marks.context("report"), lambda: marks.expected_hold("report", max_seconds=900)],
    ids=["context", "expected_hold"],
)
def test_a_generator_may_be_marked(mark: Callable[[], AbstractContextManager[None]]) -> None:
    """Each of its steps runs in a thread, and in a context, of its own: where it ends nothing was set."""
    app = _marked(mark)
    assert asyncio.run(get(app, "/dependency")) == "1"
    assert asyncio.run(get(app, "/stream")) == "12"
    assert marks.MARKS.get() == marks.NOTHING
    assert not marks._open


def test_fastapi_with_an_asynchronous_engine(recipe: Callable[[str], Any]) -> None:
    module = recipe("fastapi-async")
    kept: list[AsyncSession] = []

    async def leak(number: int) -> str:
        kept.append(module.sessions())
        return str(await kept[0].scalar(text("SELECT 1")))

    module.app.add_api_route("/leak/{number}", leak)

    async def story() -> None:
        assert await get(module.app, "/orders/7") == "7"
        assert not held()
        await get(module.app, "/leak/8")
        await get(module.app, "/orders/9")
        assert_shown(await get(module.app, "/metrics/"))
        assert_named("GET /leak/{number}")
        await kept.pop().close()
        await module.engine.dispose()

    asyncio.run(story())


def test_celery(recipe: Callable[[str], Any]) -> None:
    """In a real worker the same signals are sent (test_multiprocess.py); here the task is run in place."""
    module = recipe("celery")
    kept = []

    def leak() -> int:
        kept.append(module.sessions())
        return int(kept[0].scalar(text("SELECT 1")))

    task = module.app.task(leak, name="shop.leak")

    assert module.order.apply((7,)).get() == 7
    assert not held()
    assert task.apply().get() == 1
    assert module.order.apply((9,)).get() == 9
    assert_named("shop.leak")
    kept.pop().close()
