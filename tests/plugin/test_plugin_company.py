"""In the company of failures, of other plugins and of an application that instruments itself."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from plugin_support import Project
from pool_support import url

if TYPE_CHECKING:
    from pathlib import Path

    from pgleak.demo.embedded import EmbeddedPostgres

HEAD = """
import pytest
import pgleak
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

engine = create_engine("sqlite:///shop.db")
kept = []

def take():
    kept.append(engine.connect())

"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def write(project: Project, body: str, name: str = "test_shop.py") -> None:
    (project.folder / name).write_text(HEAD + dedent(body).lstrip("\n"), encoding="utf-8")


def test_a_failure_keeps_its_own_message_and_gets_a_section(project: Project) -> None:
    write(
        project,
        """
        def test_both():
            take()
            assert 1 == 2, 'the wrong sum'
        """,
    )
    run = project.run("--pgleak")
    assert (run.outcomes, run.messages) == ({"test_both": "failed"}, {})
    assert "the wrong sum" in run.output
    assert "pgleak: left behind at teardown" in run.output
    assert "1 connection left behind: test_shop.py:11" in run.output
    assert "1 failed in" in run.output


def test_a_broken_fixture_keeps_its_own_message(project: Project) -> None:
    write(
        project,
        """
        @pytest.fixture
        def broken():
            yield
            raise OSError('the disk is full')

        def test_both(broken):
            take()
        """,
    )
    run = project.run("--pgleak")
    assert "the disk is full" in run.output
    assert "1 connection left behind: test_shop.py:11" in run.output
    assert "1 passed, 1 error" in run.output


@pytest.mark.parametrize("how", ["", "(strict=True)", "(raises=ValueError)"])
def test_a_fixture_of_a_module_whose_last_test_is_expected_to_fail_is_told(project: Project, how: str) -> None:
    write(
        project,
        f"""
        @pytest.fixture(scope='module')
        def forgetful():
            take()

        def test_first(forgetful):
            pass

        @pytest.mark.xfail{how}
        def test_known(forgetful):
            raise ValueError('a known bug')
        """,
    )
    run = project.run("--pgleak")
    assert "by the fixture 'forgetful' (scope module)" in run.messages["test_known"]
    assert "1 passed, 1 xfailed, 1 error" in run.output


def test_what_an_expected_failure_leaves_behind_itself_is_expected(project: Project) -> None:
    write(
        project,
        """
        @pytest.mark.xfail
        def test_known():
            take()
            raise ValueError('a known bug')
        """,
    )
    run = project.run("--pgleak")
    assert (run.code, run.messages) == (0, {})


def test_a_setup_that_fails_is_judged_too(project: Project) -> None:
    write(
        project,
        """
        @pytest.fixture
        def broken():
            take()
            raise OSError('the disk is full')

        def test_never_run(broken):
            pass
        """,
    )
    run = project.run("--pgleak")
    assert "the disk is full" in run.output
    assert "1 connection left behind: test_shop.py:11" in run.output


def test_an_expected_failure_stays_expected(project: Project) -> None:
    write(
        project,
        """
        @pytest.mark.xfail(reason='known')
        def test_known():
            take()
            assert False
        """,
    )
    assert project.run("--pgleak").code == 0


def test_the_first_leak_ends_a_run_that_wants_it(project: Project) -> None:
    write(
        project,
        """
        def test_first():
            take()

        def test_second():
            take()
        """,
    )
    run = project.run("--pgleak", "-x")
    assert list(run.messages) == ["test_first"]
    assert "test_second" not in run.outcomes


def test_each_worker_of_xdist_reports_its_own(project: Project) -> None:
    write(
        project,
        """
        @pytest.mark.parametrize('n', range(6))
        def test_many(n):
            take() if n % 2 else None
        """,
    )
    run = project.run("--pgleak", "-n", "2")
    assert set(run.messages) == {"test_many[1]", "test_many[3]", "test_many[5]"}
    assert all("test_shop.py:11" in message for message in run.messages.values())


def test_a_rerun_is_judged_anew(project: Project) -> None:
    write(
        project,
        """
        runs = []

        def test_flaky():
            runs.append(1)
            if len(runs) == 1:
                take()
                assert False
        """,
    )
    run = project.run("--pgleak", "--reruns", "1")
    assert "1 passed, 1 rerun" in run.output, run.output
    assert run.code == 0


def test_a_leak_that_comes_back_in_each_rerun_stays_an_error(project: Project) -> None:
    write(
        project,
        """
        def test_leak():
            take()
        """,
    )
    run = project.run("--pgleak", "--reruns", "1")
    assert "test_leak" in run.messages
    assert run.code == 1


def test_a_doctest_is_a_test(project: Project) -> None:
    write(project, 'def ship():\n    """\n    >>> from shop import take\n    >>> take()\n    """\n', "shop.py")
    run = project.run("--pgleak", "--doctest-modules", "shop.py")
    assert "1 connection left behind: shop.py:11" in run.output
    assert run.code == 1


def test_a_leak_is_told_once(project: Project) -> None:
    """A test that comes later does not answer for what an earlier one holds."""
    write(
        project,
        """
        def test_leak():
            take()

        def test_innocent():
            kept[0].execute(text('SELECT 1'))
        """,
    )
    assert list(project.run("--pgleak").messages) == ["test_leak"]


def test_after_the_application_uninstrumented_leaks_are_found(project: Project) -> None:
    write(
        project,
        """
        def test_application():
            pgleak.instrument(engine, name='shop')
            engine.connect().close()
            pgleak.uninstrument()

        def test_leak():
            take()
        """,
    )
    assert list(project.run("--pgleak").messages) == ["test_leak"]


def test_an_engine_that_the_application_renames_keeps_its_line(project: Project) -> None:
    write(
        project,
        """
        def test_leak():
            mine = create_engine('sqlite:///other.db')
            pgleak.instrument(mine, name='shop')
            mine.connect().close()
        """,
    )
    message = project.run("--pgleak").messages["test_leak"]
    assert "1 engine left behind: test_shop.py:14" in message
    assert "an engine of shop" in message


def test_an_expected_hold_that_its_thread_did_not_survive_is_a_leak(project: Project) -> None:
    write(
        project,
        """
        import threading

        def hold():
            with pgleak.expected_hold('listen', max_seconds=600):
                take()

        def test_hold():
            thread = threading.Thread(target=hold)
            thread.start()
            thread.join()
        """,
    )
    assert list(project.run("--pgleak").messages) == ["test_hold"]


def test_many_leaks_of_one_line_are_one_entry(project: Project) -> None:
    write(
        project,
        """
        def test_many():
            for _ in range(4):
                take()
        """,
    )
    message = project.run("--pgleak").messages["test_many"]
    assert "4 connections left behind" in message
    assert "a connection of sqlite:/shop.db, 4 times, still checked out" in message
    assert message.count("test_shop.py:11 in take") == 1


def test_no_password_is_in_a_message(project: Project, system_postgres: EmbeddedPostgres) -> None:
    address = url(system_postgres).set(password="hunter2").render_as_string(hide_password=False)
    write(project, f"def test_secret():\n    mine = create_engine('{address}')\n    mine.connect().close()\n")
    message = project.run("--pgleak").messages["test_secret"]
    assert f"127.0.0.1:{system_postgres.port}/postgres" in message
    assert ":***@127.0.0.1" in message
    assert "hunter2" not in message
