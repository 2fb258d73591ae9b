"""The demo as a user sees it: it names the application that leaks, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import servers
from pgleak.demo import reaper
from pgleak.demo.view import View, scrape
from pgleak.settings import Listen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from psycopg2.extensions import connection

    from conftest import Connect, NewPostgres

_SECONDS = 24
_MARK = "DEMO_UNDER_TEST"


class Demo:
    """``pgleak demo`` in a process of its own, with a folder for its files."""

    def __init__(self, *arguments: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="demo-", dir="/tmp"))
        self.folder.chmod(0o711)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pgleak", "demo", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Whatever stands in the user's environment must not disturb: here libpq's variables.
            env={
                **os.environ,
                "TMPDIR": str(self.folder),
                _MARK: str(self.folder),
                "PGHOSTADDR": "192.0.2.1",
                "PGSERVICE": "nowhere",
                "PGPASSWORD": "wrong",
            },
        )
        self.output = ""

    def read_until(self, pattern: str) -> re.Match[str]:
        """Read the output up to a line in which the pattern is found."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if found := re.search(pattern, line):
                return found
        pytest.fail(f"the demo ended without {pattern!r}:\n{self.output}")

    def finish(self) -> int:
        """Read the rest of the output; the exit code."""
        rest, _ = self.process.communicate(timeout=60)
        self.output += rest
        return self.process.returncode

    def processes(self) -> dict[int, str]:
        """Return the command line of each process that belongs to the demo, PostgreSQL's too, by process id."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and reaper.is_running(int(entry.name)):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    ours = f"{_MARK}={self.folder}" in (entry / "environ").read_text(errors="replace")
                    if ours or str(self.folder) in command:
                        found[int(entry.name)] = command
        return found

    def left_behind(self) -> list[str]:
        """Name the files and processes of the demo that are still there."""
        return [str(path) for path in self.folder.iterdir()] + list(self.processes().values())

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        servers.wait_until(lambda: not self.left_behind(), what="the demo to be gone")
        shutil.rmtree(self.folder)


Shown = tuple[Demo, View, dict[int, str]]


@pytest.fixture
def demo() -> Iterator[Demo]:
    with contextlib.closing(Demo()) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def story() -> Iterator[Future[Shown]]:
    """A demo that runs to its end beside the tests of this module, the last of which look at it: it takes half a minute."""
    with ThreadPoolExecutor(1) as pool, contextlib.closing(Demo("--seconds", str(_SECONDS))) as demo:
        yield pool.submit(watch, demo)


def watch(demo: Demo) -> Shown:
    port = int(demo.read_until(r"metrics +http://127\.0\.0\.1:(\d+)/metrics")[1])
    demo.read_until("^! shop")
    view = scrape("127.0.0.1", port, timeout=5)
    processes = demo.processes()
    assert demo.finish() == 0, demo.output
    assert view is not None
    return demo, view, processes


@pytest.fixture
def shown(story: Future[Shown]) -> Shown:
    """What the demo said, what its exporter said shortly before, and what ran then."""
    return story.result(timeout=120)


def test_ctrl_c_ends_the_demo_in_order(demo: Demo) -> None:
    demo.read_until("shop: ")
    demo.process.send_signal(signal.SIGINT)
    assert demo.finish() == 0, demo.output
    assert "After" in demo.output
    assert "Traceback" not in demo.output
    assert demo.left_behind() == []


def test_a_taken_port_is_no_obstacle_and_sigterm_ends_the_demo_in_order() -> None:
    """The port may be taken already, by somebody else."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(socket.create_server(("127.0.0.1", Listen().port)))
        demo = stack.enter_context(contextlib.closing(Demo()))
        found = demo.read_until(r"exporter +http://127.0.0.1:(\d+)/ +\(port 10432 is taken\)")
        assert int(found[1]) != Listen().port
        demo.process.send_signal(signal.SIGTERM)
        assert demo.finish() == 0, demo.output
        assert demo.left_behind() == []


def test_nothing_is_left_of_a_demo_that_was_killed(demo: Demo) -> None:
    demo.read_until("shop: ")
    demo.process.kill()
    servers.wait_until(lambda: not demo.left_behind(), what="the demo to be gone")


@pytest.mark.parametrize(("command", "name"), [("pgleak serve", "exporter"), ("postgres -D", "PostgreSQL")])
def test_a_process_that_ends_unexpectedly_is_named(demo: Demo, command: str, name: str) -> None:
    demo.read_until("shop: ")
    [victim] = [pid for pid, line in demo.processes().items() if command in line]
    os.kill(victim, signal.SIGKILL)
    assert demo.finish() == 1
    assert re.search(rf"pgleak demo: {name} ended", demo.output), demo.output
    assert demo.left_behind() == []


@pytest.fixture
def shop(new_postgres: NewPostgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    server = new_postgres(18)
    monkeypatch.setenv("DATABASE_URL", server.dsn().replace(":", "+psycopg2:", 1))
    module = importlib.import_module("pgleak.demo.app")
    module.server = server  # type: ignore[attr-defined]
    module.Base.metadata.create_all(module.engine)
    yield module
    module.failures.clear()
    gc.collect()
    module.engine.dispose()
    del sys.modules["pgleak.demo.app"]


def test_the_shop_leaks_one_connection_for_each_failed_turn_whatever_is_collected(
    shop: ModuleType, connect: Connect
) -> None:
    """The error that is kept for the status page keeps the session; without it, a collection frees them all."""
    watcher = connect(shop.server)
    assert shop.app.test_client().post("/orders").status_code == 201
    for _ in range(16):
        with shop.Session() as session:
            session.add(shop.Order())
            session.commit()
        turn = threading.Thread(target=shop.take_turn)
        turn.start()
        turn.join()
    shop.Session.remove()
    gc.collect()
    assert _shop_states(watcher).count("idle in transaction") == 4 == len(shop.failures)

    shop.failures.clear()
    gc.collect()
    servers.wait_until(lambda: "idle in transaction" not in _shop_states(watcher))


def test_the_shops_requests_give_their_connections_back(shop: ModuleType, connect: Connect) -> None:
    watcher = connect(shop.server)
    client = shop.app.test_client()
    shop.app.add_url_rule("/broken", view_func=lambda: shop.Session.get(shop.Order, "no number").id)
    answers = [client.open(path, method=method).status_code for _ in range(10) for path, method in _REQUESTS]
    assert answers == [201, 200, 200, 405, 500] * 10
    assert _shop_states(watcher) == ["idle"]


_REQUESTS = (("/orders", "POST"), ("/orders", "GET"), ("/status", "GET"), ("/orders", "PUT"), ("/broken", "GET"))


def _shop_states(watcher: connection) -> list[str]:
    return [
        state
        for (state,) in servers.query(
            watcher, "SELECT state FROM pg_stat_activity WHERE application_name = 'shop' ORDER BY state"
        )
    ]


# The demo that ran to its end


def test_the_demo_names_the_line_that_leaks(shown: Shown) -> None:
    demo, view, _ = shown
    source = (Path(servers.__file__).parent.parent / "exporter" / "pgleak" / "demo" / "app.py").read_text().splitlines()
    line = next(number for number, text in enumerate(source, 1) if "order = session.scalars" in text)
    assert f"The line: app.py:{line} (__main__:ship_next_order)" in demo.output, demo.output
    assert [holder.site for holder in view.holders] == ["__main__:ship_next_order"]


def test_the_demo_names_the_application_that_leaks(shown: Shown) -> None:
    demo, _, _ = shown
    found = re.search(r"shop leaks: (\d+) of its (\d+) connections are suspects\n\((\d+) stuck in", demo.output)
    assert found, demo.output
    suspects, connections, stuck = map(int, found.groups())
    assert 3 <= suspects <= connections
    assert stuck == suspects
    assert not re.search(r"(billing|reports) leaks", demo.output)


def test_the_demo_says_when_the_server_is_full(shown: Shown) -> None:
    """One connection is lost in 2 s, on a busy machine in a few more; the forecast follows from the pace and the room left."""
    demo, _, _ = shown
    assert re.search(r"The server would be full at \d\d:\d\d:\d\d, in (\d+ s|\d min)\.", demo.output), demo.output
    block = re.compile(
        r"^! shop +\d+ +\+([\d.]+).*?^server: (\d+) of (\d+) taken.*?^full at [\d:]+, in (\d+) (s|min)",
        re.MULTILINE | re.DOTALL,
    )
    growth, used, usable, ahead, unit = block.findall(demo.output)[-1]
    assert 5 <= float(growth) <= 45
    seconds = int(ahead) * (60 if unit == "min" else 1)
    assert seconds == pytest.approx(60 * (int(usable) - int(used)) / float(growth), rel=0.5)


def test_the_demo_says_that_its_thresholds_are_scaled_down(shown: Shown) -> None:
    demo, _, _ = shown
    assert "scaled down" in demo.output
    assert "stuck in transaction 10 s (default 15 min)" in demo.output


def test_the_demo_fits_into_80_columns(shown: Shown) -> None:
    demo, _, _ = shown
    assert not [line for line in demo.output.splitlines() if len(line) > 80 and "app.py" not in line]


def test_the_metrics_say_what_the_terminal_says(shown: Shown) -> None:
    _, view, _ = shown
    assert view.applications["shop"].suspects["stuck_in_transaction"] > 0
    for name in ("billing", "reports"):
        assert view.applications[name].suspected == 0
    assert view.usable == 57
    assert view.login_succeeds


def test_no_process_of_the_demo_has_a_password_on_its_command_line(
    shown: Shown,
) -> None:
    _, _, processes = shown
    commands = "\n".join(processes.values())
    for program in ("pgleak serve", "pgleak.demo.app", "pgleak.demo.neighbours", "postgres -D"):
        assert program in commands
    assert "://" not in commands
    assert "password=" not in commands


def test_the_demo_leaves_nothing_when_its_time_is_up(shown: Shown) -> None:
    demo, _, _ = shown
    assert demo.left_behind() == []
