"""The demo says what to type to learn who holds the connections, and that says the line of the demo's leak."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys

import servers
from pgleak.demo.stage import SHOP
from test_demo import Demo

MARK = "    order = session.scalars(select(Order)"


def test_the_command_that_the_demo_shows_names_the_line_that_leaks() -> None:
    lines = SHOP.read_text(encoding="utf-8").splitlines()
    line = next(number for number, text in enumerate(lines, 1) if text.startswith(MARK))
    with contextlib.closing(Demo()) as demo:
        demo.read_until(r"who holds +\S+/pgleak who --diagnose \\$")
        settings = demo.read_until(r"--config (\S+)$")[1]
        command = [sys.executable, "-m", "pgleak", "who", "--diagnose", "--config", settings]

        def told() -> str:
            return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout

        servers.wait_until(lambda: "shop leaks on demo" in told(), 60)
        text = " ".join(told().split())
    assert f"line app.py:{line} in __main__:ship_next_order" in text
    assert "owner thread 'turn' has ended" in text
    assert "change take it with `with`, or call Session.remove() in a finally block" in text
    assert re.search(r"server \d+ of 57 usable connections taken", text)
    assert text.count("leaks on") == 1
