"""What the log says of a server: one line for each change, and never a flood."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import watching
from pgleak.postgres.activity import Server
from pgleak.postgres.voice import Voice
from servers import run_sql, wait_until

if TYPE_CHECKING:
    from conftest import NewPostgres
    from pgleak.postgres.reader import Reader


SERVER = Server(100, 3, 0, 0.0, superuser=False, stats_visible=True, may_use_reserved=True)


class Story:
    """A voice with a clock that is set by hand, and what it said."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "pgleak")
        self.now = 0.0
        self.voice = Voice(logging.getLogger("pgleak.test"), "db", lambda: self.now)
        self._caplog = caplog

    def lines(self) -> list[str]:
        """What was said since the last call."""
        said = self._caplog.messages
        self._caplog.clear()
        return said


@pytest.fixture
def story(caplog: pytest.LogCaptureFixture) -> Story:
    return Story(caplog)


def test_a_server_that_flaps_gets_six_lines_in_ten_minutes_and_then_the_number_of_the_others(story: Story) -> None:
    for story.now in range(0, 600, 10):
        story.voice.down("unreachable", "Connection refused")
        story.voice.up(SERVER, 10)
    assert len(story.lines()) == 6
    story.now = 600.0
    story.voice.down("unreachable", "Connection refused")
    (line,) = story.lines()
    assert "(114 lines about this server were kept back)" in line
    story.voice.up(SERVER, 10)
    assert not any("kept back" in line for line in story.lines())


def test_the_last_word_on_a_server_that_flapped_is_how_it_is(story: Story) -> None:
    for story.now in range(0, 70, 20):
        story.voice.up(SERVER, 10)
        story.voice.down("unreachable", "Connection refused")
    story.voice.up(SERVER, 10)
    assert "cannot be read" in story.lines()[-1], "the limit was reached just then"
    for story.now in range(80, 1300, 10):
        story.voice.up(SERVER, 10)
    (line,) = story.lines()
    assert line == "server db is read again after 0 s (2 lines about this server were kept back)"


def test_what_was_kept_back_and_is_no_longer_so_is_not_said(story: Story) -> None:
    for story.now in range(0, 70, 20):
        story.voice.up(SERVER, 10)
        story.voice.down("unreachable", "Connection refused")
    story.voice.up(SERVER, 10)
    story.lines()
    story.now = 700.0
    story.voice.down("timeout", "no answer")
    (line,) = story.lines()
    assert "cannot be read (timeout)" in line
    story.voice.down("timeout", "no answer")
    assert story.lines() == []


def test_a_server_that_is_still_down_is_mentioned_once_an_hour(story: Story) -> None:
    for story.now in range(0, 3 * 3600, 15):
        story.voice.down("timeout", "no answer")
    assert len(story.lines()) == 3


def test_a_flapping_server_that_is_full_still_says_so(story: Story) -> None:
    """What the other lines have used up is not taken from the one that matters most."""
    for story.now in range(0, 100, 10):
        story.voice.down("unreachable", "Connection refused")
        story.voice.up(SERVER, 10)
    story.lines()
    story.voice.up(SERVER, 97)
    story.voice.down("slots_exhausted", "sorry, too many clients already")
    full, refused = story.lines()
    assert "is full: 97 of 97" in full
    assert "slots_exhausted" in refused


def test_another_reason_is_another_line_lost_and_unreachable_are_one_and_the_return_counts_from_the_first(
    story: Story,
) -> None:
    story.voice.up(SERVER, 10)
    story.lines()
    for story.now, reason in ((10, "connection_lost"), (20, "unreachable"), (30, "unreachable"), (40, "timeout")):
        story.voice.down(reason, "said")
    assert [line.split("(")[1].split(")")[0] for line in story.lines()] == ["connection_lost", "timeout"]
    story.now = 70.0
    story.voice.up(SERVER, 10)
    assert story.lines() == ["server db is read again after 60 s"]


def test_a_full_server_is_one_line_and_room_again_another(story: Story) -> None:
    story.voice.up(SERVER, 96)
    story.lines()
    for used in (97, 97, 98, 96, 96):
        story.voice.up(SERVER, used)
    full, room = story.lines()
    assert "is full: 97 of 97" in full
    assert "has room again: 96 of 97" in room


@pytest.mark.parametrize(("superuser", "said"), [(True, "as a superuser"), (False, "does not see other roles' states")])
def test_a_role_that_has_too_much_or_too_little_is_one_line(story: Story, superuser: bool, said: str) -> None:
    role = replace(SERVER, superuser=superuser, stats_visible=superuser)
    story.voice.up(role, 1)
    story.voice.up(role, 1)
    (line,) = [line for line in story.lines() if "is read:" not in line]
    assert said in line
    assert "`pgleak grants`" in line


def test_a_server_that_stays_down_is_one_line_and_its_return_another(
    new_postgres: NewPostgres, readers: list[Reader], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pgleak")
    server = new_postgres(18)
    run_sql(server, "CREATE ROLE watcher LOGIN IN ROLE pg_read_all_stats")
    reader = watching.reader(server, user="watcher")
    readers.append(reader)
    watching.read(reader)
    server.stop()
    caplog.clear()
    watching.read(reader)
    for _ in range(50):
        assert watching.read(reader).reason == "unreachable"
    assert len(caplog.records) == 1
    assert "cannot be read" in caplog.text
    server.start()
    wait_until(lambda: watching.read(reader).server)
    assert len(caplog.records) == 2
    assert "read again" in caplog.text
