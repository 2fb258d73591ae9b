"""The log line that README shows is one that a process would write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pgleak.pool.monitor import describe
from pgleak.pool.snapshot import Backend, Frame, Owner
from pgleak.pool.suspects import Verdict
from state_support import a_checkout

README = Path(__file__).parents[2] / "README.md"


def test_the_line_in_readme_is_what_is_logged() -> None:
    frames = (Frame("shop.jobs", "ship", "/srv/shop/jobs.py", 42), Frame("shop.jobs", "turn", "/srv/shop/jobs.py", 57))
    checkout = replace(
        a_checkout(age=6.0),
        backend=Backend(4711, 1000.0, "db1:5432/shop"),
        site="shop.jobs:ship",
        frames=frames,
        owner=Owner("thread", "turn", "dead", dead_for=6.0),
        standing=(),
        context="",
        expected=None,
    )
    assert describe(Verdict("shop", checkout, "owner_dead", 5.0)) in README.read_text().splitlines()
