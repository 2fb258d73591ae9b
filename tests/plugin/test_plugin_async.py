"""Asynchronous tests, under pytest-asyncio."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from plugin_support import Project, Run, leak_line
from pool_support import ASYNC_DRIVERS, url

if TYPE_CHECKING:
    from pathlib import Path

    from pgleak.demo.embedded import EmbeddedPostgres

LEAKS = {
    "test_session_kept": "async with AsyncSession(engine) as session",
    "test_connection_dropped": "only the garbage collector gave it back",
    "test_task_goes_on": "Held by: the task 'shipper', which is now at test_leaks_async.py",
    "test_engine_not_disposed": "`await engine.dispose()`",
}


@pytest.fixture(scope="module", params=ASYNC_DRIVERS)
def run(
    request: pytest.FixtureRequest, system_postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    project = Project(
        tmp_path_factory.mktemp("async"), url(system_postgres, request.param).render_as_string(hide_password=False)
    )
    project.copy("leaks_async")
    return project.run("--pgleak", "-W", "error::sqlalchemy.exc.SAWarning")


@pytest.mark.parametrize("test", LEAKS)
def test_an_asynchronous_leak_is_told_with_its_line(run: Run, test: str) -> None:
    message = run.messages[test]
    assert f"at test_leaks_async.py:{leak_line('leaks_async', test)} in " in message
    assert LEAKS[test] in re.sub(r"\s+", " ", message)


def test_what_is_in_order_passes(run: Run) -> None:
    """Sessions of a wider scope, finished tasks and fixtures are no leaks; nothing else fails for the collector's warnings."""
    assert set(run.messages) == set(LEAKS), run.output
    assert set(run.outcomes.values()) == {"passed"}, run.output


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_a_leak_on_the_loop_of_one_test(system_postgres: EmbeddedPostgres, tmp_path: Path, mode: str) -> None:
    """In both of pytest-asyncio's modes, with a loop for each test that is closed when the test is judged."""
    project = Project(tmp_path, url(system_postgres, "asyncpg").render_as_string(hide_password=False))
    project.write(
        "test_loop.py",
        """
        import os
        import pytest
        from sqlalchemy.ext.asyncio import create_async_engine
        from sqlalchemy.pool import NullPool

        kept = []

        @pytest.mark.asyncio
        async def test_kept():
            engine = create_async_engine(os.environ["DATABASE_URL"], poolclass=NullPool)
            kept.append(await engine.connect())

        @pytest.mark.asyncio
        async def test_closed():
            engine = create_async_engine(os.environ["DATABASE_URL"], poolclass=NullPool)
            async with engine.connect():
                pass
        """,
    )
    run = project.run("--pgleak", f"--asyncio-mode={mode}")
    assert list(run.messages) == ["test_kept"], run.output
    assert "at test_loop.py:11 in test_kept" in run.messages["test_kept"]
