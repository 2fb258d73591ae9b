"""Leaks are found and named, and nothing else is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from plugin_support import Project, Run, leak_line
from pool_support import url

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgleak.demo.embedded import EmbeddedPostgres

#: what each test of the project is to be told, beside the line
LEAKS = {
    "test_connection_kept": "Kept by: the global kept of test_leaks",
    "test_connection_dropped_in_a_cycle": "only the garbage collector gave it back",
    "test_connection_dropped_at_once": "only the garbage collector gave it back",
    "test_connection_collected_before_the_end": "only the garbage collector gave it back",
    "test_connection_detached": "detached from its pool and never closed",
    "test_session_kept": "Not saved: 1 new Order",
    "test_scoped_session_not_removed": "A scoped_session is ended by `Session.remove()`",
    "test_error_path_skips_the_close": "the exception ValueError",
    "test_raises_keeps_the_frame": "what pytest.raises() gave",
    "test_thread_still_holds": "Held by: the thread 'shipper', which is now at test_leaks.py",
    "test_thread_ended_holding": "the thread 'shipper' that took it has ended",
    "test_engine_not_disposed": "call `engine.dispose()`",
    "test_engine_kept": "it keeps 1 connection open",
    "test_fixture_that_never_closes": "in forgetful",
    "test_parameters[False]": "with engine.connect() as connection",
    "test_unittest": "with Session(engine) as session",
    "test_last_user_of_the_module_fixture": "by the fixture 'forgetful_module' (scope module), not by this test",
}
Runs = "Callable[[str], Run]"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def run(
    request: pytest.FixtureRequest, system_postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Run]:
    """What `pytest --pgleak` says of a project, on SQLite and on PostgreSQL. Each is run once."""
    known: dict[str, Run] = {}

    def once(name: str) -> Run:
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            database = (
                f"sqlite:///{folder}/shop.db"
                if request.param == "sqlite"
                else url(system_postgres).render_as_string(hide_password=False)
            )
            project = Project(folder, database)
            project.copy(name)
            known[name] = project.run("--pgleak")
        return known[name]

    return once


@pytest.mark.parametrize("test", LEAKS)
def test_a_leak_is_told_with_its_line_and_its_reason(run: Callable[[str], Run], test: str) -> None:
    message = run("leaks").messages[test]
    line = leak_line("leaks", "forgetful_module" if "module_fixture" in test else test.partition("[")[0])
    assert f"at test_leaks.py:{line} in " in message
    assert LEAKS[test] in re.sub(r"\s+", " ", message)


def test_only_the_tests_that_leak_are_told(run: Callable[[str], Run]) -> None:
    """The first user of the module's fixture is not to blame, nor is a parameter that is in order."""
    seen = run("leaks")
    assert set(seen.messages) == set(LEAKS), seen.output
    assert set(seen.outcomes.values()) == {"passed"}
    assert seen.code == 1


@pytest.mark.parametrize("test", LEAKS)
def test_a_message_fits_on_a_screen(run: Callable[[str], Run], test: str) -> None:
    lines = run("leaks").messages[test].splitlines()
    assert len(lines) <= 24
    # names of servers and files have no end and are not broken
    assert all(len(line) <= 79 or " " not in line.strip() for line in lines)


def test_what_is_in_order_passes(run: Callable[[str], Run]) -> None:
    seen = run("healthy")
    assert not seen.messages, seen.output
    assert set(seen.outcomes.values()) == {"passed"}, seen.output
    assert seen.code == 0
