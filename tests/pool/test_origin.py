"""Which frames are the application's, and which line an instruction is on."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from pgleak.pool import origin
from pgleak.pool.origin import capture, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.pool.origin import Stack

HERE = Path(__file__).read_text(encoding="utf-8").splitlines()


def here() -> tuple[Stack, bool]:
    return capture(sys._getframe(1))


def test_four_frames_at_most_the_innermost_first() -> None:
    def recurse(depth: int) -> Stack:
        if depth:
            return recurse(depth - 1)
        return here()[0]  # INNERMOST

    frames = resolve(recurse(9))
    assert len(frames) == 4
    assert HERE[frames[0].line - 1].endswith("# INNERMOST")
    assert all("return recurse(" in HERE[frame.line - 1] for frame in frames[1:])
    assert {frame.module for frame in frames} == {__name__}


def test_context_managers_do_not_hide_who_entered_them() -> None:
    """Each stands behind a frame of contextlib's, and a checkout in the innermost one is a caller's far out."""

    @contextmanager
    def transaction() -> Iterator[Stack]:
        yield here()[0]

    @contextmanager
    def unit_of_work() -> Iterator[Stack]:
        with transaction() as stack:
            yield stack

    @contextmanager
    def traced() -> Iterator[Stack]:
        with unit_of_work() as stack:
            yield stack

    with traced() as stack:
        frames = resolve(stack)
    assert [frame.function.rpartition(".")[2] for frame in frames] == [
        "transaction", "unit_of_work", "traced", "test_context_managers_do_not_hide_who_entered_them",
    ]  # fmt: skip


def test_a_call_over_many_lines_is_on_its_first_or_own_line() -> None:
    stack, _ = here(
    )  # fmt: skip
    (frame, *_) = resolve(stack)
    assert "here(" in HERE[frame.line - 1]


@pytest.mark.parametrize(
    ("file", "module", "place"),
    [
        (sqlalchemy.__file__, "sqlalchemy", origin.LIBRARY),
        (sqlalchemy.orm.session.__file__, "sqlalchemy.orm.session", origin.SESSION),
        (threading.__file__, "threading", origin.LIBRARY),
        ("<frozen importlib._bootstrap>", "importlib._bootstrap", origin.LIBRARY),
        (origin.__file__, "pgleak.pool.origin", origin.LIBRARY),
        ("/usr/lib/python3/site-packages/flask/app.py", "flask.app", origin.LIBRARY),
        ("/usr/lib/python3/site-packages/shop/orders.py", "shop.orders", origin.PACKAGE),
        ("/srv/shop/orders.py", "shop.orders", origin.APPLICATION),
        ("/srv/shop/flask_sqlalchemy_helpers.py", "flask_sqlalchemy_helpers", origin.APPLICATION),
        ("<stdin>", "__main__", origin.APPLICATION),
        ("app.py", "__main__", origin.APPLICATION),
    ],
)
def test_where_a_file_belongs(file: str, module: str, place: int) -> None:
    assert origin._place(file, module) == place


def test_an_application_installed_as_a_package_is_found_where_there_is_no_other() -> None:
    """The thread starts in the package: around it there is only the standard library."""
    namespace: dict[str, Any] = {"__name__": "shop.orders", "capture": capture, "sys": sys, "found": []}
    body = "def place():\n    found.append(capture(sys._getframe(0))[0])\n"
    exec(compile(body, "/x/site-packages/shop/orders.py", "exec"), namespace)
    thread = threading.Thread(target=namespace["place"])
    thread.start()
    thread.join()
    namespace["place"]()
    alone, within = namespace["found"]
    assert [frame.site for frame in resolve(alone)] == ["shop.orders:place"]
    assert resolve(within)[0].module == __name__, "where the application calls a package, the line is the application's"


def test_endless_file_names_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "_FILES_KEPT", 10)
    monkeypatch.setattr(origin, "_places", {})
    monkeypatch.setattr(origin, "_modules", {})
    for number in range(50):
        namespace: dict[str, Any] = {"__name__": "generated", "here": here}
        exec(compile("found = here()", f"<cell {number}>", "exec"), namespace)
        assert resolve(namespace["found"][0])[0].file == f"<cell {number}>"
    assert len(origin._places) <= 11
