"""The demo's arithmetic and its lines: pure functions of what the exporter said."""

from __future__ import annotations

import io
import itertools

import pytest

from pgleak.demo.growth import History, Outlook, floor, slope
from pgleak.demo.screen import Requests, Screen, block, distance, duration, summary
from pgleak.demo.view import Application, View, parse

STUCK = {"stuck_in_transaction": 3, "never_reused": 0, "passed_over": 0}


def _view(time: float, **connections: int) -> View:
    """Make a view in which only the shop has suspects."""
    applications = {
        name: Application(name, number, STUCK if name == "shop" else {}) for name, number in connections.items()
    }
    return View(time, up=True, used=sum(connections.values()), usable=57, applications=applications)


def test_the_floor_is_the_least_value_of_the_window_before() -> None:
    points = list(enumerate([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0]))
    assert floor(points, window=2) == [(2, 1.0), (3, 1.0), (4, 1.0), (5, 1.0), (6, 2.0)]


def test_the_slope_is_that_of_the_line_with_the_least_squares() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == 2
    assert slope([(0, 0), (1, 2), (2, 1)]) == 0.5
    assert slope([(7, 3)]) == slope([]) == 0


def test_growth_is_known_when_there_is_enough_to_see() -> None:
    history = History()
    history.add(_view(0, shop=5))
    assert history.outlook() == Outlook()


def test_a_leak_gives_its_pace_and_the_time_at_which_the_server_is_full() -> None:
    history = History()
    for second in range(0, 41, 2):
        history.add(_view(second, shop=4 + second // 2, billing=4))
    outlook = history.outlook()
    assert outlook.per_minute["shop"] == pytest.approx(30)
    assert outlook.per_minute["billing"] == 0
    # 28 are in use at 40 s; the floor of the last 5 s, on which the forecast stands, is 26.
    assert outlook.full_at == pytest.approx(40 + 60 * (57 - 26) / 30)


def test_a_full_server_keeps_the_pace_that_filled_it() -> None:
    history = History()
    for second in range(0, 41, 2):
        history.add(_view(second, shop=4 + second // 2))
        history.outlook()
    for second in range(42, 142, 2):
        history.add(_view(second, shop=57))
    outlook = history.outlook()
    assert outlook.per_minute["shop"] == pytest.approx(30)
    said = summary(_view(142, shop=57), outlook, full_since=42, elapsed=142)
    assert "+30.0 connections a minute" in " ".join(said)


def test_load_that_comes_and_goes_is_no_growth() -> None:
    history = History()
    for second, peak in zip(range(60), itertools.cycle([0, 1, 3, 9])):
        history.add(_view(second, shop=4 + peak * second // 12))
    outlook = history.outlook()
    assert outlook.per_minute["shop"] == pytest.approx(0, abs=0.5)
    assert outlook.full_at is None


def test_the_growth_of_an_application_without_suspects_is_no_forecast() -> None:
    history = History()
    for second in range(40):
        history.add(_view(second, billing=second))
    outlook = history.outlook()
    assert outlook.per_minute["billing"] == pytest.approx(60)
    assert outlook.full_at is None


def test_a_scrape_is_summed_per_application_over_databases_and_users() -> None:
    labels = 'server="demo",usename="u"'
    view = parse(
        f"""
pgleak_up{{server="demo"}} 1
pgleak_used_connections{{server="demo"}} 9
pgleak_usable_connections{{server="demo"}} 57
pgleak_login_success{{server="demo"}} 0
pgleak_connections{{{labels},datname="a",application_name="shop",state="idle"}} 2
pgleak_connections{{{labels},datname="b",application_name="shop",state="active"}} 3
pgleak_suspect_connections{{{labels},datname="a",application_name="shop",evidence="never_reused"}} 1
pgleak_suspect_connections{{{labels},datname="b",application_name="shop",evidence="never_reused"}} 1
""",
        now=12.0,
    )
    shop = Application("shop", 5, {"never_reused": 2})
    assert view == View(12.0, up=True, used=9, usable=57, login_succeeds=False, applications={"shop": shop})


def test_the_leaking_application_comes_first_and_is_marked() -> None:
    lines = block(_view(0, billing=4, shop=12), Outlook({"shop": 29.6}, 90.0), Requests(7, 1), 42, None)
    assert lines[1].split() == ["!", "shop", "12", "+29.6", "3", "stuck", "in", "transaction"]
    assert lines[2].split() == ["billing", "4", "...", "0"]
    assert any("16 of 57" in line for line in lines)
    assert any("in 90 s" in line or "in 2 min" in line for line in lines)
    assert "7 requests answered, 1 failed" in lines[-1]


def test_a_full_server_is_said_to_be_full_and_the_exporter_to_report() -> None:
    view = _view(0, shop=52, billing=5)
    lines = block(view, Outlook(), Requests(), 120, full_since=-10.0)
    assert any("FULL since" in line for line in lines)
    assert any("the exporter reports on" in line for line in lines)
    assert all(len(line) <= 78 for line in lines)
    assert "The server is full since" in "\n".join(summary(view, Outlook(), -10.0, 120))


@pytest.mark.parametrize("view", [None, View(0)])
def test_without_an_answer_the_demo_says_so(view: View | None) -> None:
    assert "the exporter" in block(view, Outlook(), Requests(), 1, None)[0]
    assert "no figures" in summary(view, Outlook(), None, 1)[0]


@pytest.mark.parametrize(("seconds", "text"), [(-3, "in 0 s"), (89.6, "in 90 s"), (420, "in 7 min"), (7200, "in 2 h")])
def test_distances_are_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert distance(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(10, "10 s"), (300, "5 min"), (3600, "1 h"), (90, "90 s")])
def test_durations_are_in_the_largest_unit_that_divides_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_redrawn_in_place() -> None:
    terminal = Terminal()
    screen = Screen(terminal, {"TERM": "xterm"})
    screen.draw(["one", "! two"])
    screen.draw(["three"])
    assert "\x1b[1;31m! two\x1b[0m" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2Athree\x1b[K\n\x1b[J")


def test_a_small_terminal_gets_what_fits_and_is_still_redrawn_in_place() -> None:
    terminal = Terminal()
    screen = Screen(terminal, {"TERM": "xterm"}, size=lambda: (10, 4))
    screen.draw(["a long line that does not fit", "two", "three", "four", "five"])
    screen.draw(["one", "two", "three", "four", "five"])
    first, second = terminal.getvalue().split("\x1b[3A")
    assert "four" not in terminal.getvalue(), (
        "the third line is the last but one of the terminal, where the cursor stands"
    )
    assert first.startswith("a long li\x1b[K\n")
    assert second.startswith("one")


def test_a_terminal_that_was_resized_is_cleared_as_lines_may_have_been_wrapped() -> None:
    terminal = Terminal()
    sizes = iter([(80, 24), (80, 24), (40, 24), (40, 24)])
    screen = Screen(terminal, {"TERM": "xterm"}, size=lambda: next(sizes))
    screen.draw(["one", "two"])
    screen.draw(["three", "four"])
    screen.draw(["five"])
    before, after = terminal.getvalue().split("\x1b[H\x1b[2J")
    assert "\x1b[" + "2A" not in before
    assert after.startswith("three")
    assert "\x1b[2Afive" in after


def test_no_color_is_respected() -> None:
    terminal = Terminal()
    Screen(terminal, {"TERM": "xterm", "NO_COLOR": "1"}).draw(["! two"])
    assert "[1;31m" not in terminal.getvalue()


@pytest.mark.parametrize(("stream", "environ"), [(io.StringIO, {"TERM": "xterm"}), (Terminal, {"TERM": "dumb"})])
def test_a_plain_stream_gets_no_control_characters(stream: type[io.StringIO], environ: dict[str, str]) -> None:
    output = stream()
    screen = Screen(output, environ)
    screen.draw(["! one"])
    screen.draw(["two"])
    assert output.getvalue() == "\n! one\n\ntwo\n"
