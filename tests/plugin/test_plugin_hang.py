"""A run that hangs because of a leak never comes to its report: the leak is told while it hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import servers
from plugin_support import Project
from pool_support import url

if TYPE_CHECKING:
    from pathlib import Path

    from pgleak.demo.embedded import EmbeddedPostgres

CONFTEST = """
    import os
    import pytest
    from pgleak.testing import alarm
    from sqlalchemy import MetaData, Table, Column, Integer, create_engine, event, text
    from sqlalchemy.orm import Session

    alarm.PATIENCE = 0.3
    metadata = MetaData()
    orders = Table("orders_{scope}", metadata, Column("id", Integer))

    @pytest.fixture(scope="{scope}")
    def engine():
        engine = create_engine(os.environ["DATABASE_URL"])
        # else the run would end with the patience of whoever looks on
        event.listen(engine, "connect", lambda raw, _: raw.cursor().execute("SET lock_timeout = '4s'"))
        metadata.create_all(engine)
        yield engine
        metadata.drop_all(engine)
        engine.dispose()
    """
TESTS = """
    from sqlalchemy import select
    from sqlalchemy.orm import Session
    from conftest import orders

    kept = []

    def test_leak(engine):
        kept.append(Session(engine))
        kept[0].execute(select(orders))

    def test_more():
        pass
    """


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["", "xdist"])
@pytest.mark.parametrize("scope", ["function", "session"])
def test_what_a_drop_all_waits_for_is_told_before_it_is_over(
    system_postgres: EmbeddedPostgres, tmp_path: Path, scope: str, options: tuple[str, ...]
) -> None:
    """By the test's own fixture, when nothing was judged yet, or by the last one of the run."""
    project = Project(tmp_path, url(system_postgres).render_as_string(hide_password=False))
    project.write("conftest.py", CONFTEST.format(scope=scope))
    project.write("test_shop.py", TESTS)
    run = project.run("--pgleak", *options)
    servers.run_sql(system_postgres, f"DROP TABLE orders_{scope}")
    told, waited = run.output.find("pgleak: the run has been waiting"), run.output.find("LockNotAvailable")
    assert 0 <= told < waited, run.output
    assert "test_shop.py:9 in test_leak" in run.output[told:waited]
    assert run.output.count("pgleak: the run has been waiting") == 1


def test_it_is_told_once(system_postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    project = Project(tmp_path, url(system_postgres).render_as_string(hide_password=False))
    project.write("conftest.py", "from pgleak.testing import alarm\nalarm.PATIENCE = 0.1\n")
    project.write(
        "test_shop.py",
        """
        import os
        import pytest
        from sqlalchemy import create_engine, text

        engine = create_engine(os.environ["DATABASE_URL"])
        kept = []

        def test_leak():
            kept.append(engine.connect())

        @pytest.mark.parametrize("n", range(3))
        def test_slow(n):
            with engine.connect() as connection:
                connection.execute(text("SELECT pg_sleep(0.7)"))
        """,
    )
    run = project.run("--pgleak")
    assert list(run.messages) == ["test_leak"]
    assert run.output.count("has been waiting") == 1


def test_a_test_that_takes_long_by_itself_is_not_spoken_of(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("conftest.py", "from pgleak.testing import alarm\nalarm.PATIENCE = 0.1\n")
    project.write(
        "test_shop.py",
        """
        import threading
        from sqlalchemy import create_engine

        engine = create_engine("sqlite:///shop.db")
        kept = []

        def test_leak():
            kept.append(engine.connect())

        def test_long():
            threading.Event().wait(1)
        """,
    )
    run = project.run("--pgleak")
    assert list(run.messages) == ["test_leak"]
    assert "has been waiting" not in run.output
