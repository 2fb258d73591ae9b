"""Every query of every panel, with its variables filled in, on a real Prometheus: of the running demo, and of the story."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asking import prometheus as server
from asking.board import Board, Span
from drawing.page import page
from rules_support import questions
from servers import wait_until
from story import samples
from test_dashboards import BOARDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from asking.prometheus import Prometheus

pytestmark = pytest.mark.timeout(300)

CONNECTIONS, APPLICATION, POOL = "pgleak-connections", "pgleak-application", "pgleak-pool"
STEP = 240.0  # between two scrapes of the story
HEALTHY = "empty while nothing is wrong there"
LIMITS = "no role of the demo has a limit"
WELL = "says that all is well, which it is not"
UNLIMITED = "the pool of the demo has no maximum"
HISTORY = "looks back six hours or a day; the story has them"

# (board, panel): why its queries, or those named by their letters, may give nothing on a demo that runs for a minute.
MAY_BE_EMPTY: dict[tuple[str, str], tuple[str, str]] = {
    (CONNECTIONS, "Which server is full first?"): (WELL, "B"),
    (CONNECTIONS, "Because of which application?"): (WELL, "B"),
    (CONNECTIONS, "Who holds connections that look leaked?"): (WELL, "B"),
    (CONNECTIONS, "Which application grows?"): (HISTORY, "A"),
    (CONNECTIONS, "Servers"): (HISTORY, "D"),
    (CONNECTIONS, "Why are logins refused?"): (HEALTHY, "AB"),
    (CONNECTIONS, "Which role or database is near a limit of its own?"): (LIMITS, "AB"),
    (CONNECTIONS, "How do sessions end badly?"): (HEALTHY, "ABC"),
    (APPLICATION, "When is its server full?"): (WELL, "B"),
    (APPLICATION, "What speaks for a leak?"): (HISTORY, "B"),
    (APPLICATION, "Does its floor rise?"): (HISTORY, "C"),
    (POOL, "Connections held too long"): (WELL, "B"),
    (POOL, "Fullest pool"): (UNLIMITED, "A"),
    (POOL, "What do the pools hold?"): (UNLIMITED, "D"),
    (POOL, "Which pool is used up?"): (UNLIMITED, "AB"),
    (POOL, "Who waits for a connection?"): (HEALTHY, "AB"),
    (POOL, "What did the collector return?"): (HEALTHY, "A"),
    (POOL, "How many are opened and closed?"): (HEALTHY, "B"),
    (POOL, "Do engines pile up?"): (HEALTHY, "B"),
    (POOL, "Are the reports complete?"): (HEALTHY, "BCDE"),
}
# The story has no folder that processes share, and none of its late connections is returned.
DEMO_ALONE = {(POOL, "Are the reports complete?", "A"), (POOL, "Which code holds connections too long?", "E")}
# Questions of the runbook that a demo has no answer to; test_dashboard_mishaps.py has.
UNANSWERED = {
    "deriv(sqlalchemy_pool_unused_engines[30m]) * 3600",
    "increase(pgleak_scrape_errors_total[15m]) > 0",
    "pgleak_stale_processes > 0",
    "pgleak_state_files_skipped > 0",
    "pgleak_state_folder_readable == 0",
    "sum by (job, pool, site) (sqlalchemy_pool_returned_by_gc_total) > 0",
}


def boards(span: Span) -> dict[str, Board]:
    return {name: Board(json, {"application": ("shop",)}, span) for name, json in BOARDS.items()}


def empty(prometheus: Prometheus, span: Span) -> set[tuple[str, str, str]]:
    """(board, panel, letter) of each query that gives nothing; one that Prometheus refuses fails the test."""
    return {
        (name, panel["title"], target["refId"])
        for name, board in boards(span).items()
        for panel in board.panels()
        for target in panel["targets"]
        if not board.ask(prometheus, target, 60)
    }


def exempt(reason: str = "") -> set[tuple[str, str, str]]:
    return {(*key, letter) for key, (why, letters) in MAY_BE_EMPTY.items() for letter in letters if reason in why}


def test_each_exception_is_a_query_that_exists() -> None:
    there = {
        (name, panel["title"], target["refId"])
        for name, board in BOARDS.items()
        for panel in board["panels"]
        for target in panel.get("targets", [])
    }
    assert exempt() <= there


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[Path]]:
    """The story's last day and the hours before that it needs, coarser than for the pictures.

    It is told by another process, because the demo, which waits more than it works, needs as long to come to its leak.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        yield process.submit(_tell, tmp_path_factory.mktemp("story"))


def _tell(folder: Path) -> Path:
    server.backfill(folder, samples.lines(samples.BEGIN, STEP, twice=True))
    return folder


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, told: Future[Path]) -> Iterator[Prometheus]:
    """The running demo's Prometheus, which scrapes both halves of it and has the rules loaded, with minutes for hours."""
    assert not told.cancelled()
    folder = tmp_path_factory.mktemp("demo")
    with (folder / "said").open("w+") as output:
        command = [sys.executable, "-u", "-m", "pgleak", "demo"]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield server.Prometheus(wait_until(partial(address, Path(output.name)), timeout=90, what="its Prometheus"))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def address(said: Path) -> str:
    found = re.search(r"(http://[\d.:]+)/graph", said.read_text())
    return found[1] if found else ""


def test_every_panel_of_the_running_demo_shows_something(demo: Prometheus) -> None:
    started = time.time()
    missing: set[tuple[str, str, str]] = set()

    def complete() -> bool:
        nonlocal missing
        missing = empty(demo, Span(started - 60, time.time(), 1)) - exempt()
        return not missing

    with contextlib.suppress(pytest.fail.Exception):  # the list below says more
        wait_until(complete, timeout=120, what="data")
    assert not missing


def test_no_row_of_a_table_has_what_the_table_does_not_show(demo: Prometheus) -> None:
    """Grafana adds a column for each further label, and makes two rows of what differs in one, as in a series' name."""
    now = time.time()
    for board in boards(Span(now - 60, now, 1)).values():
        for panel in board.panels():
            if panel["type"] == "table":
                shown = next(
                    one["options"]["renameByName"] for one in panel["transformations"] if one["id"] == "organize"
                )
                for target in panel["targets"]:
                    for series in board.ask(demo, target, 60):
                        assert series.labels.keys() <= shown.keys(), f"{panel['title']}, {target['refId']}"


def test_the_runbook_finds_the_leak_of_the_demo(demo: Prometheus) -> None:
    """Each of its questions is answered, but those about what the demo does not suffer from."""
    silent: set[str] = set()

    def all_answer() -> bool:
        nonlocal silent
        silent = {query for query in questions() if not demo.instant(query, time.time())}
        return silent <= UNANSWERED

    with contextlib.suppress(pytest.fail.Exception):
        wait_until(all_answer, timeout=60, what="answers")
    assert silent <= UNANSWERED


def test_each_exception_is_needed(demo: Prometheus) -> None:
    """But that logins are refused, and that somebody waits for one: the demo comes to that when it is full."""
    now = time.time()
    shown = exempt() - empty(demo, Span(now - 60, now, 1))
    assert {(board, title) for board, title, _ in shown} <= {
        (CONNECTIONS, "Why are logins refused?"),
        (POOL, "Who waits for a connection?"),
    }


def test_the_variables_offer_what_the_demo_has(demo: Prometheus) -> None:
    found = boards(Span(time.time() - 300, time.time(), 1))

    def offered(board: str, variable: str) -> list[str]:
        return found[board].values(demo, variable)

    wait_until(partial(has, offered, POOL, "site", "__main__:ship_next_order"), timeout=60, what="the leaking place")
    assert offered(CONNECTIONS, "job") == ["pgleak"] == offered(POOL, "job")
    assert offered(CONNECTIONS, "server") == ["demo"]
    assert {"shop", "billing", "reports"} <= set(offered(APPLICATION, "application"))
    assert offered(POOL, "pool") == ["shop"]


def has(offered: object, board: str, variable: str, value: str) -> bool:
    assert callable(offered)
    return value in offered(board, variable)


@pytest.fixture(scope="module")
def story(told: Future[Path]) -> Iterator[tuple[Prometheus, Span]]:
    with server.running(told.result(timeout=200)) as prometheus:
        yield prometheus, Span(samples.END - 86400, samples.END, STEP)


def test_a_server_that_is_scraped_in_two_ways_counts_once(story: tuple[Prometheus, Span]) -> None:
    """Each query of each panel says the same of one job's series and of those of both."""
    prometheus, span = story
    ways = 'count by (server) (pgleak_used_connections{server="orders"})'
    assert [series.last for series in prometheus.instant(ways, span.end)] == [2]
    for name, json in BOARDS.items():
        one, both = (Board(json, {"application": ("shop",), **job}, span) for job in ({"job": (samples.JOB,)}, {}))
        for panel in one.panels():
            for target in panel["targets"]:
                asked = [board.ask(prometheus, target, 30) for board in (one, both)]
                first, second = (
                    {str(sorted(each.labels.items())): str(each.points) for each in answer} for answer in asked
                )
                assert first == second, f"{name}: {panel['title']}"


def test_no_hour_of_the_story_accuses_load(story: tuple[Prometheus, Span]) -> None:
    """The day before the leak has nightly jobs and peaks; after some hours of the leak it is the only one to be named."""
    prometheus, _ = story
    board = BOARDS[CONNECTIONS]
    tiles = {panel["title"]: panel["targets"][0] for panel in board["panels"] if panel["type"] == "stat"}
    named: dict[int, set[str]] = {}
    for hour in range(-20, 22):
        end = samples.DEPLOYED + hour * 3600
        asked = Board(board, {}, Span(end - 86400, end, STEP))
        answers = [
            asked.ask(prometheus, tiles[title], 60)
            for title in ("Because of which application?", "Which server is full first?")
        ]
        named[hour] = {
            label for answer in answers for one in answer for name, label in one.labels.items() if name != "usename"
        }
    assert {hour: names for hour, names in named.items() if hour <= 0 and names} == {}
    assert {hour: names for hour, names in named.items() if not names <= {"shop", "orders"}} == {}
    assert all(names == {"shop", "orders"} for hour, names in named.items() if hour >= 3), named


def test_the_story_shows_what_a_minute_cannot(story: tuple[Prometheus, Span]) -> None:
    """And all else but mishaps and limits, which it does not have."""
    assert empty(*story) == exempt(HEALTHY) | exempt(WELL) | exempt(LIMITS) | DEMO_ALONE


def test_the_first_tiles_name_the_server_the_time_and_the_application(story: tuple[Prometheus, Span]) -> None:
    prometheus, span = story
    board = boards(span)[CONNECTIONS]
    tiles = {panel["title"]: panel["targets"][0] for panel in board.panels()}
    (full,) = board.ask(prometheus, tiles["Which server is full first?"], 60)
    assert full.labels == {"server": "orders"}
    assert 6 * 3600 < full.last < 12 * 3600
    (grows,) = board.ask(prometheus, tiles["Because of which application?"], 60)
    assert grows.labels["application_name"] == "shop"
    assert 7 < grows.last < 11
    (leaks,) = board.ask(prometheus, tiles["Who holds connections that look leaked?"], 60)
    assert leaks.labels["application_name"] == "shop"


def test_both_halves_of_the_story_name_the_line(story: tuple[Prometheus, Span]) -> None:
    """The pools' dashboard in a tile, those of the server beside the application that leaks."""
    prometheus, span = story
    found = boards(span)

    def ask(board: str, title: str, letter: str) -> list[dict[str, str]]:
        panel = next(panel for panel in found[board].panels() if panel["title"] == title)
        target = next(target for target in panel["targets"] if target["refId"] == letter)
        return [series.labels for series in found[board].ask(prometheus, target, 60)]

    assert ask(POOL, "Connections held too long", "A") == [{"site": "shop.jobs:ship_next_order"}]
    assert ask(APPLICATION, "Which code holds them too long?", "A") == [{"site": "shop.jobs:ship_next_order"}]
    (row,) = ask(CONNECTIONS, "Applications by growth", "E")
    assert (row["application_name"], row["site"]) == ("shop", "shop.jobs:ship_next_order")


def test_the_story_is_the_one_that_the_docs_tell(story: tuple[Prometheus, Span]) -> None:
    """240 connections after the deploy, and about nine more with every hour."""
    prometheus, span = story
    expr = 'max(pgleak_used_connections{server="orders"})'
    ((deployed,), (now,)) = (prometheus.instant(expr, moment) for moment in (samples.DEPLOYED, span.end))
    assert deployed.last == pytest.approx(240, abs=8)
    assert (now.last - deployed.last) / 21 == pytest.approx(9, abs=1)


def test_the_marks_stand_where_everything_began_anew(story: tuple[Prometheus, Span]) -> None:
    prometheus, span = story

    def moments(board: str, name: str) -> set[float]:
        marks = {mark["name"]: mark["target"]["expr"] for mark in BOARDS[board]["annotations"]["list"]}
        expr = boards(span)[board].expression(marks[name], 60)
        found = prometheus.range(expr, span.start, span.end, 60)
        return {value / 1000 for series in found for _, value in series.points if value / 1000 > span.start}

    assert moments(POOL, "Process started") == moments(APPLICATION, "Process started") == {samples.DEPLOYED}
    deployed = moments(APPLICATION, "Deployed")
    assert deployed
    assert all(0 <= moment - samples.DEPLOYED <= 600 for moment in deployed)
    assert moments(CONNECTIONS, "Server started") == moments(APPLICATION, "Server started") == set()  # long before


def test_the_preview_draws_every_panel_with_its_title_and_the_culprit(story: tuple[Prometheus, Span]) -> None:
    prometheus, span = story
    for name, board in boards(span).items():
        html, height = page(board, prometheus, [])
        assert height > 1000
        titles = [panel["title"].replace("$server", "orders") for panel in board.json["panels"]]
        assert [title for title in titles if f">{title}<" not in html] == []
        assert "<path" in html
        assert ("shop.jobs:ship_next_order" if name == POOL else "shop") in html


def test_the_preview_says_how_much_it_shows(story: tuple[Prometheus, Span]) -> None:
    prometheus, span = story
    for seconds, said in ((540, "last 9 minutes"), (86400, "last 24 hours")):
        html, _ = page(Board(BOARDS[POOL], {}, Span(span.end - seconds, span.end, STEP)), prometheus, [], top=True)
        assert said in html
