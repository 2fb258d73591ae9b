"""Which frames are the application's, and which line an instruction is on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pytest
import sqlalchemy

from pgleak.pool import origin
from pgleak.pool.lines import resolve
from pgleak.pool.origin import capture
from pool_support import url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.demo.embedded import EmbeddedPostgres
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
        (str(Path(sys.executable).with_name("gunicorn")), "__main__", origin.PACKAGE),
        ("/srv/shop/bin/worker", "__main__", origin.APPLICATION),
        ("<stdin>", "__main__", origin.APPLICATION),
        (
            "<sqlalchemy generated _go() wrapper for x:commit>",
            "<sqlalchemy generated _go() wrapper for x",
            origin.LIBRARY,
        ),
        ("app.py", "__main__", origin.APPLICATION),
    ],
)
def test_where_a_file_belongs(file: str, module: str, place: int) -> None:
    assert origin._place(file, module) == place


@pytest.mark.parametrize("folder", ["/srv", "/x/site-packages"])
@pytest.mark.parametrize("helpers", [("shop.db",), ("shop.db.repository", "other"), ("shop.d",)])
def test_who_called_a_helper_is_the_place(folder: str, helpers: tuple[str, ...]) -> None:
    """Where nobody else did, as in a thread that the helper started itself, it is the helper's own line."""
    found: list[Stack] = []
    names: dict[str, Any] = {"capture": capture, "sys": sys, "found": found}
    for module, body in (
        ("shop.db.repository", "def take():\n    found.append(capture(sys._getframe(0))[0])\n"),
        ("shop.orders", "def ship():\n    take()\n"),
    ):
        names = {**names, "__name__": module}
        exec(compile(body, f"{folder}/{module.replace('.', '/')}.py", "exec"), names)
    origin.look_past(helpers)
    try:
        for call in (names["ship"], names["take"]):
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()
        sites = [[frame.site for frame in resolve(stack)] for stack in found]
    finally:
        origin.look_past(())
    taken, shipped = "shop.db.repository:take", "shop.orders:ship"
    assert sites == [[shipped] if helpers != ("shop.d",) else [taken, shipped], [taken]]


@pytest.mark.parametrize("folder", ["/srv", "/x/site-packages"])
def test_a_library_that_nobody_knows_calls_the_helper(folder: str) -> None:
    """What is installed is the application where its helper is installed as well, and else a task runner, perhaps."""
    found: list[Stack] = []
    names: dict[str, Any] = {"capture": capture, "sys": sys, "found": found}
    for file, module, body in (
        (f"{folder}/shop/db.py", "shop.db", "def take():\n    found.append(capture(sys._getframe(0))[0])\n"),
        ("/x/site-packages/runner.py", "runner", "def run():\n    take()\n"),
    ):
        names = {**names, "__name__": module}
        exec(compile(body, file, "exec"), names)
    origin.look_past(["shop"])
    try:
        for _ in range(2):
            thread = threading.Thread(target=names["run"])
            thread.start()
            thread.join()
        sites = [[frame.site for frame in resolve(stack)] for stack in found]
    finally:
        origin.look_past(())
    assert sites == [["shop.db:take", "runner:run"] if folder == "/srv" else ["runner:run"]] * 2


def test_an_application_installed_as_a_package_is_found_where_there_is_no_other() -> None:
    """The thread starts in the package: around it there is only the standard library."""
    namespace: dict[str, Any] = {"__name__": "shop.orders", "capture": capture, "sys": sys, "found": []}
    body = "def place():\n    found.append(capture(sys._getframe(0))[0])\n"
    exec(compile(body, "/x/site-packages/shop/orders.py", "exec"), namespace)
    for _ in range(2):  # the first time, when its file is looked at, and after that
        thread = threading.Thread(target=namespace["place"])
        thread.start()
        thread.join()
        namespace["place"]()
        alone, within = namespace["found"][-2:]
        assert [frame.site for frame in resolve(alone)] == ["shop.orders:place"]
        assert resolve(within)[0].module == __name__, (
            "where the application calls a package, it is the application's line"
        )


def test_an_installed_application_is_not_taken_for_the_script_that_started_it(
    postgres16: EmbeddedPostgres, tmp_path: Path
) -> None:
    """At the far end of each request stands the script that the installer made, of gunicorn here."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    (packages / "shop.py").write_text(INSTALLED)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        process = subprocess.Popen(
            [Path(sys.executable).with_name("gunicorn"), "-b", f"fd://{listening.fileno()}", "shop:app"],
            env={**os.environ, "PYTHONPATH": str(packages), "SHOP_URL": url(postgres16).render_as_string(hide_password=False)},
            pass_fds=[listening.fileno()],
        )  # fmt: skip
        try:
            for _ in range(3):  # the first time and each time after that
                with urllib.request.urlopen(address, timeout=60) as answer:
                    assert json.load(answer) == ["shop:load", "shop:app"]
        finally:
            process.terminate()
            process.wait(30)


INSTALLED = """
import json, os
import pgleak
from sqlalchemy import create_engine

engine = create_engine(os.environ["SHOP_URL"])
pgleak.instrument(engine, name="shop")

def load():
    return engine.connect()

def app(environ, start_response):
    connection = load()
    (checkout,) = pgleak.snapshot().pools[0].checkouts
    connection.close()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([frame.site for frame in checkout.frames[:2]]).encode()]
"""


def test_an_installed_application_is_not_taken_for_what_spawned_it(
    postgres16: EmbeddedPostgres, tmp_path: Path
) -> None:
    """A process that multiprocessing spawns, as uvicorn does its workers, begins with a line of `python -c`."""
    program = tmp_path / "site-packages" / "shop.py"
    program.parent.mkdir()
    program.write_text(SPAWNED)
    done = subprocess.run(
        [sys.executable, program, url(postgres16).render_as_string(hide_password=False)],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.stdout.split() == 2 * ["take", "report"], done.stderr


SPAWNED = """
import multiprocessing
import sys

def take(engine):
    return engine.connect()

def report(url):
    import pgleak
    from sqlalchemy import create_engine

    engine = create_engine(url)
    pgleak.instrument(engine, name="shop")
    for _ in range(2):
        connection = take(engine)
        (checkout,) = pgleak.snapshot().pools[0].checkouts
        print(*(frame.function for frame in checkout.frames[:2]), flush=True)
        connection.close()

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=report, args=(sys.argv[1],))
    process.start()
    process.join()
"""


def test_a_template_that_asks_for_a_row_is_no_place_and_the_code_that_renders_it_is() -> None:
    """What Jinja compiles has no module's name, and lines of its own."""
    found: list[Stack] = []
    template = jinja2.Environment(autoescape=True).from_string("\n\n{% for row in rows() %}{{ row }}{% endfor %}")

    def rows() -> tuple[()]:
        found.append(capture(sys._getframe(1))[0])
        return ()

    for _ in range(2):  # the first time, when it is looked at, and after that
        template.render(rows=rows)
    for stack in found:
        frames = resolve(stack)
        assert [frame.function for frame in frames[:1]] == [
            "test_a_template_that_asks_for_a_row_is_no_place_and_the_code_that_renders_it_is"
        ]
        assert not any("jinja2" in frame.file or frame.file == "<template>" for frame in frames)


def test_an_installed_application_is_remembered_by_its_callers_until_there_is_another(tmp_path: Path) -> None:
    program, application = tmp_path / "site-packages" / "shop.py", tmp_path / "application"
    program.parent.mkdir()
    application.mkdir()
    program.write_text(REMEMBERED)
    (application / "orders.py").write_text("def ask(shop):\n    return shop.deep(9)\n")
    done = subprocess.run(
        [sys.executable, program, application], capture_output=True, text=True, timeout=90, check=False
    )
    assert json.loads(done.stdout) == {
        "one": ["take", 6], "same": ["take", 6], "other": ["take", 7], "remembered": 2, "own": ["take", 6], "theirs": ["ask", 2],
    }, done.stderr  # fmt: skip


REMEMBERED = """
import json, sys
from pgleak.pool import lines, origin

def take(other):
    return (capture() if not other else
            capture())

def capture():
    first, *_ = lines.resolve(origin.capture(sys._getframe(1))[0])
    return [first.function, first.line]

def deep(frames, other=False):
    return deep(frames - 1, other) if frames else take(other)

one, same, other = deep(9), deep(9), deep(9, True)
remembered = sum(map(len, origin._installed.values()))
sys.path.insert(0, sys.argv[1])
import orders
own = deep(9)
for _ in range(64):  # the callers that are known are not looked behind each time
    orders.ask(sys.modules["__main__"])
print(json.dumps({
    "one": one, "same": same, "other": other, "remembered": remembered, "own": own, "theirs": orders.ask(sys.modules["__main__"]),
}))
"""


def test_endless_file_names_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "_FILES_KEPT", 10)
    monkeypatch.setattr(origin, "_places", {})
    monkeypatch.setattr(origin, "_modules", {})
    for number in range(50):
        namespace: dict[str, Any] = {"__name__": "generated", "here": here}
        exec(compile("found = here()", f"<cell {number}>", "exec"), namespace)
        assert resolve(namespace["found"][0])[0].file == f"<cell {number}>"
    assert len(origin._places) <= 11


def test_endless_code_without_a_file_name_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, empty in (("_CODES_KEPT", 10), ("_places", {}), ("_modules", {})):
        monkeypatch.setattr(origin, name, empty)
    for number in range(50):
        namespace: dict[str, Any] = {"__name__": "generated", "here": here}
        exec(f"def code_{number}():\n    return here()", namespace)
        assert resolve(namespace[f"code_{number}"]()[0])[0].site == f"generated:code_{number}"
    assert len(origin._places) <= 11
