"""When the plugin works, when it does not, and what it says of mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from plugin_support import Project

if TYPE_CHECKING:
    from pathlib import Path

LEAK = """
    import pytest
    from sqlalchemy import create_engine

    engine = create_engine("sqlite:///shop.db")
    kept = []

    def take():
        kept.append(engine.connect())

    def test_leak():
        take()

    @pytest.mark.pgleak
    def test_marked():
        take()
    """


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.write("test_shop.py", LEAK)
    return made


def test_off_by_default_it_loads_neither_sqlalchemy_nor_the_ledger(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write(
        "test_modules.py",
        """
        import sys

        def test_modules():
            assert "pgleak.pytest_plugin" in sys.modules
            heavy = [name for name in sys.modules if name.startswith(("sqlalchemy", "pgleak.pool", "pgleak.testing"))]
            assert not heavy, heavy
        """,
    )
    assert project.run().outcomes == {"test_modules": "passed"}


def test_off_by_default_nothing_is_judged(project: Project) -> None:
    project.write("test_shop.py", LEAK.replace("@pytest.mark.pgleak", ""))
    run = project.run()
    assert (run.code, run.messages) == (0, {})


def test_the_option_judges_every_test(project: Project) -> None:
    run = project.run("--pgleak")
    assert set(run.messages) == {"test_leak", "test_marked"}
    assert "pgleak: each test must leave no connection" in run.output


def test_the_ini_key_is_the_option(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\npgleak = true\n")
    assert set(project.run().messages) == {"test_leak", "test_marked"}
    assert not project.run("-o", "pgleak=false", "--deselect", "test_shop.py::test_marked").messages


def test_the_marker_alone_judges_its_test(project: Project) -> None:
    run = project.run("--strict-markers")
    assert set(run.messages) == {"test_marked"}


@pytest.mark.parametrize("allow", ["connection", "test_shop:take", "*:take", "*"])
def test_the_ini_file_may_allow_a_kind_or_a_place(project: Project, allow: str) -> None:
    project.write("pytest.ini", f"[pytest]\npgleak_allow =\n    session\n    {allow}\n")
    assert project.run("--pgleak").code == 0


def test_what_is_allowed_allows_nothing_else(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\npgleak_allow = test_shop:give\n")
    assert set(project.run("--pgleak").messages) == {"test_leak", "test_marked"}


def test_a_misspelt_kind_is_an_error_that_names_it(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\npgleak_allow = sesion\n")
    run = project.run("--pgleak")
    assert run.code == pytest.ExitCode.USAGE_ERROR
    assert (
        "pgleak_allow: 'sesion' is neither connection, session, engine, * nor a place as module:function" in run.output
    )
    assert "Traceback" not in run.output


@pytest.mark.parametrize(
    ("marker", "complaint"),
    [
        ("('session')", "takes `allow` and nothing else, not 'session'"),
        ("(alow='session')", "takes `allow` and nothing else, not alow"),
        ("(allow=3)", "a text or a list of texts is wanted, not 3"),
        ("(allow=['sesion'])", "'sesion' is neither connection, session, engine"),
    ],
)
def test_a_wrong_marker_is_an_error_that_names_the_test(project: Project, marker: str, complaint: str) -> None:
    project.write("test_shop.py", LEAK.replace("mark.pgleak", f"mark.pgleak{marker}"))
    run = project.run()
    assert run.code == pytest.ExitCode.USAGE_ERROR
    assert f"test_shop.py::test_marked: {'the marker pgleak ' if 'takes' in complaint else ''}" in run.output
    assert complaint in run.output
    assert "Traceback" not in run.output


def test_it_can_be_taken_out(project: Project) -> None:
    run = project.run("-p", "no:pgleak", "-W", "ignore::pytest.PytestUnknownMarkWarning")
    assert (run.code, run.messages) == (0, {})
    assert project.run("-p", "no:pgleak", "--pgleak").code == pytest.ExitCode.USAGE_ERROR


def test_collecting_alone_starts_nothing(project: Project) -> None:
    project.write(
        "conftest.py",
        """
        import sys

        def pytest_unconfigure():
            print("loaded" if "pgleak.testing.guard" in sys.modules else "not loaded")
        """,
    )
    run = project.run("--pgleak", "--collect-only", "-s")
    assert run.code == 0
    assert "not loaded" in run.output


def test_afterwards_sqlalchemy_is_as_it_was(project: Project) -> None:
    """Within the same process, as an IDE or a mutation tester runs pytest again and again."""
    project.write(
        "twice.py",
        """
        import sys, threading
        import pytest
        from sqlalchemy import Engine, Pool
        from sqlalchemy.orm import Session

        before = (Engine.__init__, Pool.connect, threading.enumerate())
        for _ in range(2):
            code = pytest.main(sys.argv[1:])
            after = (Engine.__init__, Pool.connect, threading.enumerate())
            assert after == before, (before, after)
            assert not list(Session().dispatch.after_begin)
            from pgleak.pool.ledger import LEDGER, witnesses
            assert not witnesses and not LEDGER.pools
            assert code == pytest.ExitCode.TESTS_FAILED
            sys.modules.pop("test_shop")
        print("as it was")
        """,
    )
    run = project.run("--pgleak", "-p", "no:rerunfailures", python=("twice.py",))
    assert "as it was" in run.output, run.output
    assert run.code == 0


def test_it_starts_no_thread_and_no_file_of_its_own(tmp_path: Path) -> None:
    """Unless the application asks for them by `instrument`, as it does in production."""
    folder = tmp_path / "state"
    project = Project(tmp_path, PGLEAK_DIR=str(folder))
    project.write(
        "test_quiet.py",
        """
        import threading
        import pgleak
        from sqlalchemy import create_engine

        engine = create_engine("sqlite:///shop.db")

        def use():
            engine.connect().close()
            return {each.name for each in threading.enumerate() if each.name.startswith("pgleak")}

        def test_quiet():
            assert use() == set()

        def test_asked_for():
            pgleak.instrument(engine, name="shop")
            assert "pgleak-monitor" in use()
        """,
    )
    run = project.run("--pgleak", "test_quiet.py::test_quiet")
    assert run.outcomes == {"test_quiet": "passed"}, run.output
    assert not folder.exists()
    assert project.run("--pgleak").outcomes == {"test_quiet": "passed", "test_asked_for": "passed"}
