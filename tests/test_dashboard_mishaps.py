"""Each query that is empty while nothing is wrong has something to show when it is, and the tiles say what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import mishaps
from asking import prometheus as server
from asking.board import Board, Span
from boards import colours
from drawing import fields
from rules_support import questions
from test_dashboard_queries import (
    APPLICATION,
    CONNECTIONS,
    DEMO_ALONE,
    HEALTHY,
    LIMITS,
    POOL,
    UNANSWERED,
    boards,
    empty,
    exempt,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asking.prometheus import Prometheus

pytestmark = pytest.mark.timeout(120)

SPAN = Span(mishaps.BEGIN, mishaps.END, mishaps.STEP)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("mishaps")
    server.backfill(folder, mishaps.lines())
    with server.running(folder) as running:
        yield running


def test_each_query_that_is_empty_when_healthy_shows_its_mishap(prometheus: Prometheus) -> None:
    assert empty(prometheus, SPAN) & (exempt(HEALTHY) | exempt(LIMITS) | DEMO_ALONE) == set()


def test_each_of_them_is_empty_before_its_mishap(prometheus: Prometheus) -> None:
    """But limits, which are no mishap, and the processes that report."""
    before = Span(mishaps.BEGIN, mishaps.BEGIN + mishaps.CASES * mishaps.STEP, mishaps.STEP)
    assert exempt(HEALTHY) - empty(prometheus, before) == set()


def test_the_runbooks_questions_about_mishaps_are_answered(prometheus: Prometheus) -> None:
    assert set(questions()) >= UNANSWERED
    assert [query for query in UNANSWERED if not prometheus.instant(query, mishaps.END)] == []


def ask(prometheus: Prometheus, board: Board, title: str, letter: str = "A") -> tuple[dict[str, Any], list[Any]]:
    panel = next(panel for panel in board.panels() if panel["title"] == title)
    target = next(target for target in panel["targets"] if target["refId"] == letter)
    return panel, board.ask(prometheus, target, 120)


@pytest.mark.parametrize(
    ("board", "title", "value"),
    [
        (CONNECTIONS, "Which server is full first?", 0),  # now, and it does not grow any more
        (CONNECTIONS, "Fullest server", 1.0),
        (APPLICATION, "When is its server full?", 0),
        (CONNECTIONS, "Refused logins", 2 * mishaps.CASES),  # the canary's, and those of pgleak itself
        (CONNECTIONS, "Unread servers", 1),
        (POOL, "Fullest pool", 1.0),
        (POOL, "Connections held too long", mishaps.POOLED + 2),
        (POOL, "Timeouts", mishaps.CASES),
        (POOL, "Waiting requests", 2),
        (POOL, "Collected checkouts", mishaps.CASES),
        (POOL, "Orphaned connections", 1),
    ],
)
def test_a_tile_is_red_and_says_how_many(prometheus: Prometheus, board: str, title: str, value: float) -> None:
    panel, (series,) = ask(prometheus, boards(SPAN)[board], title)
    assert series.last == pytest.approx(value, rel=0.03)
    colour = fields.colour(panel["fieldConfig"]["defaults"], "", series.last)
    assert colour in ({colours.BAD, colours.ATTENTION} if title == "Waiting requests" else {colours.BAD})


def tiles(prometheus: Prometheus, moment: float) -> dict[str, tuple[str, str]]:
    """What each coloured tile says at a moment, and its colour."""
    found = {}
    for board in boards(Span(moment - 600, moment, mishaps.STEP)).values():
        for panel in board.panels():
            if panel["options"].get("colorMode") == "background_solid":
                answers = [one for target in panel["targets"] for one in board.ask(prometheus, target, 60)]
                assert len(answers) <= 1, panel["title"]
                field = panel["fieldConfig"]["defaults"]
                null = field["mappings"][0]["options"]["result"]
                found[panel["title"]] = (
                    (fields.mapped(field, answers[0].last), fields.colour(field, "", answers[0].last))
                    if answers
                    else (null["text"], null["color"])
                )
    return found


def test_tiles_are_green_while_all_is_well_and_grey_where_nothing_is_known(prometheus: Prometheus) -> None:
    """Before pgleak was scraped, and long after, nobody knows; that is not to look like good news."""
    well = tiles(prometheus, mishaps.BEGIN + 600)
    assert {colour for _, colour in well.values()} == {colours.GOOD}
    assert well["Which server is full first?"] == ("None by a leak within 30 days", colours.GOOD)
    assert well["Who holds connections that look leaked?"] == ("Nobody", colours.GOOD)
    for moment in (mishaps.BEGIN - 600, mishaps.END + 900):
        assert {colour for _, colour in tiles(prometheus, moment).values()} == {colours.UNKNOWN}


@pytest.mark.parametrize("title", ["Collected checkouts", "Timeouts"])
def test_a_single_case_is_counted(prometheus: Prometheus, title: str) -> None:
    """The counter of a place appears with its first case, so that there is no rise to see."""
    first = mishaps.BEGIN + (mishaps.CASES + 1) * mishaps.STEP
    _, (series,) = ask(prometheus, boards(Span(mishaps.BEGIN, first, mishaps.STEP))[POOL], title)
    assert series.last == pytest.approx(1, rel=0.1)


def test_what_comes_back_after_a_gap_was_not_collected_in_it(prometheus: Prometheus) -> None:
    _, (series,) = ask(prometheus, boards(SPAN)[POOL], "What did the collector return?")
    gone = mishaps.BEGIN + mishaps.GAP.stop * mishaps.STEP
    back = [value for moment, value in series.points if moment >= gone]
    assert back
    assert max(back) < 6, "one with each scrape, four scrapes to an interval"


def test_limits_of_roles_and_databases_are_filled_in_by_their_own(prometheus: Prometheus) -> None:
    board = boards(SPAN)[CONNECTIONS]
    _, full = ask(prometheus, board, "Which role or database is near a limit of its own?")
    shown = {one.labels.get("usename", one.labels.get("datname")): one.last for one in full if "usename" in one.labels}
    assert shown == {"shop": pytest.approx(38 / 40, abs=0.03)}
    (database,) = (one.last for one in full if "datname" in one.labels)
    assert database == pytest.approx(38 / 50, abs=0.03)


def test_what_refuses_and_what_is_skipped_is_named(prometheus: Prometheus) -> None:
    found = boards(SPAN)
    _, canary = ask(prometheus, found[CONNECTIONS], "Why are logins refused?", "A")
    _, reads = ask(prometheus, found[CONNECTIONS], "Why are logins refused?", "B")
    assert [one.labels for one in canary] == [{"server": "orders", "reason": "role_limit"}]
    assert [one.labels for one in reads] == [{"server": "billing", "reason": "slots_exhausted"}]
    _, skipped = ask(prometheus, found[POOL], "Are the reports complete?", "C")
    _, nowhere = ask(prometheus, found[POOL], "Are the reports complete?", "D")
    assert [one.labels for one in skipped] == [{"reason": "version"}]
    assert [one.labels for one in nowhere] == [{"reason": "not_watched"}]


def test_the_pools_name_who_holds_what_leaks_before_the_server_has_evidence(tmp_path: Path) -> None:
    """And once it has, its number counts, which knows the role."""
    at = {"orders": 0, "billing": 2}  # suspects by server
    held = {"shop": ("pooled", 9), "jobs": ("owner_dead", 4), "cron": ("overdue", 1)}
    lines = [
        f'pgleak_suspect_connections{{job="pgleak",instance="a",server="{name}",datname="shop",usename="web",application_name="cron",'
        f'evidence="never_reused"}} {suspects} {mishaps.END}'
        for name, suspects in at.items()
    ]
    lines += [
        f'pgleak_backends{{job="pgleak",instance="a",server="{name}",application_name="{application}",holder="{holder}"}} {count} '
        f"{mishaps.END}"
        for name in at
        for application, (holder, count) in held.items()
        if application != "jobs" or name == "orders"
    ]
    kinds = [f"# TYPE {name} gauge" for name in ("pgleak_suspect_connections", "pgleak_backends")]
    server.backfill(tmp_path, iter([kinds[0], *lines[:2], kinds[1], *lines[2:], "# EOF"]))
    with server.running(tmp_path) as running:
        board = boards(Span(mishaps.END - 60, mishaps.END, mishaps.STEP))[CONNECTIONS]
        _, (found,) = ask(running, board, "Who holds connections that look leaked?")
        assert (found.labels["application_name"], found.labels["usename"], found.last) == ("jobs", "by its pools", 4)
        query = next(p for p in board.panels() if p["title"] == "Who holds connections that look leaked?")["targets"][0]
        everybody = {**query, "expr": query["expr"].replace("topk(1, ", "topk(9, ")}
        named = {
            (one.labels["server"], one.labels["application_name"]): one.last
            for one in board.ask(running, everybody, 60)
        }
        assert named == {("orders", "jobs"): 4, ("orders", "cron"): 1, ("billing", "cron"): 2}
