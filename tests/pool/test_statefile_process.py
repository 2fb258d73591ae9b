"""A real process and its file: up to date while it lives, complete when it ends, gone when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from pgleak.pool import reading
from pgleak.pool.statefile import Reporter
from servers import wait_until
from state_support import a_snapshot, state_files


def program(body: str) -> str:
    """A program that reports a snapshot of its own, with `ensure` as the instrumentation calls it."""
    return textwrap.dedent("""
        import os, signal, sys, time
        {before}
        sys.path[:0] = sys.argv[1:]
        from state_support import a_pool, a_snapshot
        from pgleak.pool import statefile
        statefile.INTERVAL = 0.1
        calls = 0
        def read():
            global calls
            calls += 1
            return a_snapshot(a_pool(checkouts=calls), pid=os.getpid())
        {body}
    """).format(before="", body=textwrap.indent(textwrap.dedent(body), " " * 0).strip())


def start(code: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, "-c", code, here.parent, here],
        env={**os.environ, "PGLEAK_DIR": str(folder)},
        text=True,
        stdout=subprocess.PIPE,
        **options,
    )


def pids(folder: Path) -> set[int]:
    return {reported.snapshot.process.pid for reported in reading.read(folder).processes}


def test_the_file_is_kept_up_to_date_and_never_keeps_the_process_alive(folder: Path) -> None:
    process = start(program("statefile.ensure(read); input()"), folder, stdin=subprocess.PIPE)
    wait_until(lambda: pids(folder) == {process.pid}, 20)
    before = reading.read(folder).processes[0].snapshot.pools[0].counters.checkouts
    wait_until(lambda: reading.read(folder).processes[0].snapshot.pools[0].counters.checkouts > before + 2)
    began = time.monotonic()
    process.communicate("\n", timeout=10)
    assert process.returncode == 0
    assert time.monotonic() - began < 5
    assert pids(folder) == set()


def test_the_last_state_of_a_process_that_ends_is_not_lost(folder: Path) -> None:
    """However short its life was: what it counted is written as it ends."""
    process = start(program("statefile.INTERVAL = 60; statefile.ensure(read); time.sleep(0.5); calls = 999"), folder)
    process.communicate(timeout=20)
    assert reading.read(folder).ended["shop"].checkouts == 1000


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_multiprocessing_report_for_themselves_to_the_end(
    folder: Path, method: str, tmp_path: Path
) -> None:
    """They end without running atexit."""
    script = tmp_path / "children.py"
    script.write_text(
        textwrap.dedent(f"""
        import multiprocessing, os, sys
        sys.path[:0] = sys.argv[1:]
        from state_support import a_pool, a_snapshot
        from pgleak.pool import statefile
        statefile.INTERVAL = 60
        checkouts = 1
        def read():
            return a_snapshot(a_pool(checkouts=checkouts), pid=os.getpid())
        def work():
            global checkouts
            statefile.ensure(read)
            checkouts = 100
        if __name__ == "__main__":
            statefile.ensure(read)
            context = multiprocessing.get_context("{method}")
            children = [context.Process(target=work) for _ in range(2)]
            for child in children: child.start()
            for child in children: child.join()
        """)
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PGLEAK_DIR": str(folder)}
    subprocess.run([sys.executable, script, here.parent, here], env=environment, check=True, timeout=40)
    assert reading.read(folder).ended["shop"].checkouts == 201


def test_a_killed_parent_vanishes_although_its_child_lives(folder: Path) -> None:
    """The child inherited the descriptor of a locked file; it must not keep the lock."""
    body = """
    statefile.ensure(read)
    time.sleep(0.3)
    child = os.fork()
    if child == 0:
        statefile.ensure(read)
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(30)
    """
    process = start(program(body), folder)
    assert process.stdout is not None
    numbers = {int(process.stdout.readline()) for _ in range(2)}
    child = (numbers - {process.pid}).pop()
    try:
        wait_until(lambda: pids(folder) == numbers, 20)
        process.kill()
        process.wait()
        wait_until(lambda: pids(folder) == {child})
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()
    wait_until(lambda: pids(folder) == set())


def test_a_stopped_process_goes_stale_and_comes_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "STALE_AFTER", 0.7)
    process = start(program("statefile.ensure(read); time.sleep(30)"), folder)
    try:
        wait_until(lambda: pids(folder) == {process.pid}, 20)
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: reading.read(folder).processes[0].stale)
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: not reading.read(folder).processes[0].stale)
    finally:
        process.kill()
        process.communicate()


def test_a_file_that_a_cleaner_removed_comes_back(folder: Path) -> None:
    reporter = Reporter(folder, a_snapshot)
    reporter.write()
    state_files(folder)[0].unlink()
    reporter.write()
    assert len(reading.read(folder).processes) == 1
    reporter.stop()


def test_it_works_on_greenlets_under_gevent(folder: Path) -> None:
    body = """
    statefile.ensure(read)
    time.sleep(0.5)
    child = os.fork()
    if child == 0:
        statefile.ensure(read)
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(20)
    """
    code = program(body).replace(
        "import os, signal, sys, time", "from gevent import monkey; monkey.patch_all()\nimport os, signal, sys, time", 1
    )
    process = start(code, folder)
    assert process.stdout is not None
    numbers = {int(process.stdout.readline()) for _ in range(2)}
    try:
        wait_until(lambda: pids(folder) == numbers, 20)
    finally:
        for number in numbers:
            os.kill(number, signal.SIGKILL)
        process.wait()
        process.stdout.close()
