"""What a person reads when a test leaves much behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugin_support import Project

if TYPE_CHECKING:
    from pathlib import Path

LEAKS = """
    from sqlalchemy import create_engine

    engine = create_engine("sqlite:///shop.db", pool_size=20)
    kept = []

    def first():
        kept.append(engine.connect())

    def second():
        kept.append(engine.connect())

    def third():
        kept.append(engine.connect())

    def fourth():
        kept.append(engine.connect())

    def fifth():
        kept.append(engine.connect())

    def inner():
        for take in (first, second, third, fourth, fifth, fifth):
            take()

    def outer():
        inner()

    def test_much():
        outer()
    """


def test_five_places_with_three_callers_each_fit_on_a_screen(tmp_path: Path) -> None:
    """The first is told as a whole, the next two briefly; the places of the rest are named."""
    project = Project(tmp_path)
    project.write("test_shop.py", LEAKS)
    message = project.run("--pgleak").messages["test_much"]
    assert len(message.splitlines()) <= 24, message
    assert message.startswith("6 connections left behind: test_shop.py:7\n")
    assert message.count("called at") == 3
    assert message.count("Fix: ") == message.count("Kept by: ") == 1
    for line in (7, 10, 13, 16, 19):
        assert f"test_shop.py:{line}" in message
