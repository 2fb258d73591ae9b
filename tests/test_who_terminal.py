"""`pgleak who` in a terminal: what stands there after redrawing, in a window that changes, and over a slow link."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import servers
from holders.processes import Fleet, url
from terminal_support import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.demo.embedded import EmbeddedPostgres

NAME = "terminal-shop"


@pytest.fixture(scope="module")
def command(postgres16: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """`pgleak who` on two connections that are held for too long."""
    fleet = Fleet(tmp_path_factory.mktemp("terminal") / "state", [])
    fleet.start(url(postgres16, NAME), "overdue", "overdue")
    source = ["--dsn", postgres16.dsn(), "--server", "db", "--pool-dir", str(fleet.folder)]
    yield [sys.executable, "-m", "pgleak", "who", *source]
    fleet.close()


def shown(terminal: Terminal, what: str) -> list[str]:
    """The rows, as soon as one of them has this, and the last command has come, which places the cursor."""
    servers.wait_until(lambda: terminal.read() and settled(terminal) and any(what in row for row in terminal.rows))
    return terminal.rows


def settled(terminal: Terminal) -> bool:
    return terminal.received.endswith(b";1H")


def test_after_redrawing_there_stands_what_a_single_look_prints(command: list[str]) -> None:
    """Nothing of an older picture is left, and no row runs over the edge."""
    terminal = Terminal([*command, "--interval", "0.3"])
    shown(terminal, "pg_terminate_backend")
    seen: set[str] = set()
    while len(seen) < 4 or not settled(terminal):  # the time of day, whose seconds pass
        seen.add(terminal.rows[0])
        time.sleep(0.02)
        terminal.read()
    once = subprocess.run([*command, "--once"], capture_output=True, text=True, timeout=30, check=True).stdout
    rows = terminal.rows
    assert terminal.close() == 0

    def alike(lines: list[str]) -> list[str]:
        """But for numbers, how full the bar is and the order: the second look has a connection of its own."""
        plain = (re.sub(r"\d+", "0", line).replace("#", ".").replace("connections", "connection") for line in lines)
        return sorted(plain)

    assert alike(rows) == alike(once.splitlines())


def words(rows: list[str]) -> list[str]:
    """Without the marks, and the bar, for which a narrow window has no room."""
    return [word for word in " ".join(rows).split() if not re.fullmatch(r"!|\[[#.]+\]", word)]


@pytest.mark.parametrize("columns", [50, 110])
def test_a_window_that_changes_is_redrawn_at_once_in_its_new_width(command: list[str], columns: int) -> None:
    """Long before the next look: lines are made anew, and none is cut."""
    terminal = Terminal([*command, "--interval", "300"])
    before = shown(terminal, "pg_terminate_backend")
    terminal.resize(40, columns)
    received = len(terminal.received)
    servers.wait_until(lambda: terminal.read() and settled(terminal))
    after = terminal.rows
    assert terminal.close() == 0
    assert terminal.received[received:].startswith(b"\x1b[2J")
    assert max(map(len, after)) <= columns
    assert any(len(row) > 80 for row in after) is (columns > 80)
    assert words(after) == words(before)


def test_a_low_window_says_how_much_does_not_fit(command: list[str]) -> None:
    terminal = Terminal([*command, "--interval", "300"])
    whole = shown(terminal, "pg_terminate_backend")
    terminal.resize(6, 80)
    servers.wait_until(lambda: terminal.read() and settled(terminal) and len(terminal.rows) < len(whole))
    rows = terminal.rows
    assert terminal.close() == 0
    assert rows[:4] == whole[:4]
    assert rows[4:] == [f"... {len(whole) - 4} more lines: make the window higher, or use --once"]


def test_a_slow_link_gets_the_screen_once_and_then_what_moved_on(command: list[str]) -> None:
    terminal = Terminal([*command, "--interval", "0.3"])
    shown(terminal, "pg_terminate_backend")
    whole = terminal.received
    assert whole.startswith(b"\x1b[2J")
    later: list[bytes] = []
    end = time.monotonic() + 10
    while len(later) < 3 and time.monotonic() < end:
        new = terminal.read()
        if new:
            later.append(new)
        time.sleep(0.05)
    assert terminal.close() == 0
    assert len(later) == 3
    for update in later:
        assert b"pg_terminate_backend" not in update
        assert b"\x1b[2J" not in update
        assert len(update) < len(whole) / 2


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)], ids=["", "NO_COLOR"])
def test_colour_is_left_out_where_it_is_not_wanted(
    command: list[str], environment: dict[str, str], coloured: bool
) -> None:
    terminal = Terminal(command, **environment)
    shown(terminal, "pg_terminate_backend")
    assert terminal.close() == 0
    assert (b"\x1b[1;31m" in terminal.received) is coloured
