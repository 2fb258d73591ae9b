"""`pytest --pgleak`: a test that leaves a connection, a session or an engine behind fails, and the line is named.

pytest imports this module in every run of everybody who has pgleak installed. So there is nothing here but options: what
does the work, SQLAlchemy included, is imported when the first test that asked for it is about to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

KINDS = ("connection", "session", "engine")
MARKER = (
    "pgleak(allow=...): the test must leave no connection, session or engine behind, with or without --pgleak; `allow` "
    "names what it may leave: 'connection', 'session', 'engine', the place that took it as 'module:function' (with * and "
    "?), or '*'"
)
ALLOW = (
    "what every test may leave behind, one per line: connection, session, engine, or the place that took it as "
    "module:function (with * and ?)"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pgleak", "connection leaks")
    help_text = "fail each test that leaves an SQLAlchemy connection, session or engine behind, and name the line"
    group.addoption("--pgleak", action="store_true", default=False, help=help_text)
    parser.addini("pgleak", f"as --pgleak: {help_text}", type="bool", default=False)
    parser.addini("pgleak_allow", ALLOW, type="linelist", default=[])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    checked(config.getini("pgleak_allow"), "pgleak_allow")


def pytest_report_header(config: pytest.Config) -> str | None:
    return "pgleak: each test must leave no connection, session or engine behind" if is_on(config) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what is wrong with a marker before any test runs."""
    for item in items:
        for marker in item.iter_markers("pgleak"):
            marker_allows(marker, item.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    config = session.config
    items = getattr(session, "items", ())  # xdist's controller runs none
    if config.option.collectonly or not any(is_guarded(item) for item in items):
        return
    from pgleak.testing.guard import Guard  # noqa: PLC0415 - loads SQLAlchemy

    guard = Guard()
    config.pluginmanager.register(guard, "pgleak-guard")
    config.add_cleanup(guard.stop)
    guard.start()


def is_on(config: pytest.Config) -> bool:
    return bool(config.getoption("pgleak") or config.getini("pgleak"))


def is_guarded(item: pytest.Item) -> bool:
    """Whether somebody asked for this test to be judged."""
    return is_on(item.config) or item.get_closest_marker("pgleak") is not None


def allowed(item: pytest.Item) -> tuple[str, ...]:
    """What this test may leave behind."""
    return (
        *item.config.getini("pgleak_allow"),
        *(pattern for marker in item.iter_markers("pgleak") for pattern in marker_allows(marker, item.nodeid)),
    )


def marker_allows(marker: pytest.Mark, nodeid: str) -> tuple[str, ...]:
    """What one marker allows. Raises pytest.UsageError for any other argument than `allow`."""
    unknown = [*map(repr, marker.args), *(name for name in marker.kwargs if name != "allow")]
    if unknown:
        raise pytest.UsageError(
            f"{nodeid}: the marker pgleak takes `allow` and nothing else, not {', '.join(unknown)}. "
            "For example: @pytest.mark.pgleak(allow='session')"
        )
    allow = marker.kwargs.get("allow", ())
    return checked((allow,) if isinstance(allow, str) else allow, f"{nodeid}: pgleak(allow=...)")


def checked(patterns: Iterable[str], where: str) -> tuple[str, ...]:
    """These patterns. Raises pytest.UsageError for one that could never match."""
    if not isinstance(patterns, (list, tuple, set, frozenset)):
        raise pytest.UsageError(f"{where}: a text or a list of texts is wanted, not {patterns!r}")
    for pattern in patterns:
        if not isinstance(pattern, str) or not (pattern in KINDS or pattern == "*" or ":" in pattern):
            raise pytest.UsageError(
                f"{where}: {pattern!r} is neither {', '.join(KINDS)}, * nor a place as module:function"
            )
    return tuple(patterns)
