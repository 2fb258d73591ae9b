"""The page and /connections: what a browser without scripts and a person without sight get, and what nobody gets."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest
from benchmarks.page import CONNECTIONS, HELD, LEAKING, reading, reported

import servers
import watching
from holders.processes import APPLICATION, Fleet, url
from pgleak.exporter import Exporter
from pgleak.holders.join import join
from pgleak.pool.reading import Reading as Folder
from pgleak.pool.snapshot import Frame
from pgleak.postgres.backends import backends
from pgleak.settings import Thresholds
from pgleak.web.overview import SUSPECTS, sections
from pgleak.who.causes import CAUSES
from pgleak.who.connection import Connection
from pgleak.who.diagnosis import Diagnosis, Findings, diagnose
from pgleak.who.history import MOST, SLOT, SLOTS, History, Overview
from pgleak.who.report import Application, Report, report
from pgleak.who.room import Limit, ServerState
from web_support import FakeSite, get, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.demo.embedded import EmbeddedPostgres

NAME = "page-shop"
LINE = next(n for n, text in enumerate(APPLICATION.read_text().splitlines(), 1) if text.endswith("# TAKEN"))
CALLER = next(n for n, text in enumerate(APPLICATION.read_text().splitlines(), 1) if text == "            take()")
HOSTILE = "<script>alert(1)</script>\"'&"


@pytest.fixture(scope="module")
def fleet(postgres16: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("page") / "state", [])
    fleet.start(url(postgres16, NAME), "overdue", "overdue")
    yield fleet
    fleet.close()


@pytest.fixture
def exporter(postgres16: EmbeddedPostgres, fleet: Fleet) -> Iterator[Exporter]:
    exporter = Exporter(watching.settings(watching.target(postgres16), pool_dir=fleet.folder))
    yield exporter
    exporter.close()


def hostile() -> Overview:
    connection = Connection(
        HOSTILE, 1, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 9e4, 9e4, None, "never_reused", "unknown"
    )
    seen = Report(
        0.0, (), (Application(HOSTILE, HOSTILE, HOSTILE, (connection,)),), None, {(HOSTILE, HOSTILE, "pooler"): 1}
    )
    return Overview(seen, diagnose(seen), {})


def test_the_page_names_the_line_and_the_json_has_the_same(exporter: Exporter, postgres16: EmbeddedPostgres) -> None:
    with serving(exporter) as server:
        html = servers.wait_until(
            lambda: (page := get(server, "/").text) and "2 connections leaked" in page and page, 15
        )
        told = json.loads(get(server, "/connections").text)
    assert f"application.py:{LINE} in __main__:take" in html
    assert "<td>too early to say</td>" in html  # how much time is left: two connections leaked within seconds
    assert re.search(r"select pg_terminate_backend\(\d+\);", html)
    assert "1 process reporting, 0 of them hanging" in html
    (shop,) = (each for each in told["applications"] if each["application_name"] == NAME)
    assert [held["stack"][0]["line"] for held in shop["connections"]] == [LINE, LINE]
    assert told["diagnoses"][0]["connections"] == 2
    ending = "select pg_terminate_backend(pid) from unnest(array[{}, {}]) pid;"
    pids = [held["pid"] for held in shop["connections"]]
    assert {ending.format(*pids), ending.format(*reversed(pids))} & set(re.findall("<code>(select.*?)</code>", html))


def test_one_statement_ends_all_even_those_that_have_no_row_of_their_own() -> None:
    """The page of a full server may be the only place that still knows the process ids."""
    pids = range(1000, 1000 + 2 * SUSPECTS)
    all_of_them = f"unnest(array[{', '.join(map(str, pids))}]) pid;"
    assert all_of_them in findings_of({pid: 600.0 * (pids.stop - pid) for pid in pids})
    at_rest = findings_of(dict.fromkeys(pids, 9e4))
    assert "perhaps leaked" in at_rest
    assert "pg_terminate_backend" not in at_rest  # a pool at rest looks like that, too


def findings_of(unused: dict[int, float]) -> str:
    """The page's verdict on connections that the server alone has seen, by process id."""
    connections = tuple(
        Connection("db", pid, "shop", "shop", "shop", "", "idle", age, age, None, "never_reused", "unknown")
        for pid, age in unused.items()
    )
    seen = Report(0.0, (), (Application("db", "shop", "shop", connections),), None, {})
    return sections(Overview(seen, diagnose(seen), {})).partition("<h2>Applications</h2>")[0]


@pytest.mark.parametrize(
    ("callers", "line"),
    [
        (("invoice", "refund"), "<code>jobs.py:9 in jobs:load</code>"),
        (("invoice",), "<code>jobs.py:9 in jobs:load<br>called from shop.py:9 in shop:invoice</code>"),
        ((), "not known: no process reports it"),
    ],
    ids=["several callers", "one caller", "no frames"],
)
def test_a_finding_has_one_line(callers: tuple[str, ...], line: str) -> None:
    """A second one that says that it is not known would take the first one's word back."""
    calling = [Frame("shop", name, "shop.py", 9) for name in callers]
    frames = (Frame("jobs", "load", "jobs.py", 9), calling[0]) if calling else ()
    told = tuple((frame, 1) for frame in calling) if len(calling) > 1 else ()
    found = Diagnosis("db", "shop", "shop", CAUSES["thread_ended"], 2, 2, 900.0, None, frames, told)
    html = sections(Overview(Report(0.0, (), (), None, {}), Findings((found,), ()), {}))
    assert re.findall("<dt>Line</dt><dd>(.*?)</dd>", html) == [line]


def test_every_caller_stands_open_and_once_for_all_that_it_took(exporter: Exporter) -> None:
    """What a reader had opened would be closed again by the next refresh."""
    with serving(exporter) as server:
        html = servers.wait_until(
            lambda: (page := get(server, "/").text) and "2 connections leaked" in page and page, 15
        )
    assert "<details" not in html
    caller = f"called from application.py:{CALLER} in __main__:&lt;module&gt;"
    assert html.count(caller) == 2  # of the finding, and of the first of its two connections
    assert "<dt>Owner</dt><dd>thread &#x27;MainThread&#x27; lives and stands at application.py:" in html


def test_it_needs_no_script_and_fetches_nothing(exporter: Exporter) -> None:
    with serving(exporter) as server:
        answer = get(server, "/")
    assert "<script" not in answer.text
    assert not re.search(r"""(src|url\(|@import|href="(?!/))""", answer.text)
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_it_refreshes_by_itself_until_told_not_to(exporter: Exporter) -> None:
    with serving(exporter) as server:
        assert '<meta http-equiv="refresh" content="30">' in get(server, "/").text
        assert "http-equiv" not in get(server, "/?refresh=off").text


def test_switched_off_it_tells_of_targets_alone(postgres16: EmbeddedPostgres, fleet: Fleet) -> None:
    one = watching.target(postgres16)
    exporter = Exporter(watching.settings(one, pool_dir=fleet.folder, connections_page=False))
    try:
        with serving(exporter) as server:
            html, refused = get(server, "/").text, get(server, "/connections")
    finally:
        exporter.close()
    assert NAME not in html
    assert "/connections" not in html
    assert refused.status == 404


def test_names_from_outside_are_text_and_never_markup() -> None:
    with serving(FakeSite(shown=hostile())) as server:
        html = get(server, "/").text
        json.loads(get(server, "/connections").text)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 5
    assert "\"'&<" not in html


def test_the_history_is_the_floor_of_ten_minutes_told_in_words_too(exporter: Exporter) -> None:
    history = History()
    for minutes, count in ((0, 9), (5, 4), (10, 6), (25, 12)):
        history.add(SLOT * 1000 + minutes * 60, {("db", "u", "app"): count})
    assert history.series() == {("db", "u", "app"): {1000: 4, 1001: 6, 1002: 12}}
    at = SLOT * 1002 + 1
    connection = hostile().report.applications[0].connections[0]._replace(evidence="")
    seen = Report(at, (), (Application("db", "u", "app", (connection,)),), None, {})
    with serving(FakeSite(shown=Overview(seen, diagnose(seen), history.series()))) as server:
        assert 'role="img" aria-label="from 4 to 12, between 4 and 12"' in get(server, "/").text


def test_the_time_left_is_that_of_the_limit_that_is_reached_first() -> None:
    hour = 3600.0
    leaks = tuple(
        Connection("db", pid, "d", "u", "app", "", "idle", pid * hour, pid * hour, None, "never_reused", "unknown")
        for pid in (1, 2, 3, 4)
    )
    server = ServerState("db", "db:5432", used=50, usable=97, limits=(Limit("role", "u", 4, 10),))
    seen = Report(1e9, (server,), (Application("db", "u", "app", leaks),), None, {})
    with serving(FakeSite(shown=Overview(seen, diagnose(seen), {}))) as web:
        assert '<span class="bad">6 h</span>: role u, 4 of 10 taken' in get(web, "/").text


def test_what_is_well_is_counted_and_not_made_one_by_one() -> None:
    """A page of hundreds of healthy applications shows how many connections they have; JSON has each of them."""
    now, applications = time.time(), LEAKING + 15
    one = reading(now, applications)
    folder = Folder(tuple(reported(now, number) for number in range(applications)))
    seen = report(now, [one], {"orders": "db1:5432"}, folder, join(backends(one, Thresholds()), folder.processes))
    with serving(FakeSite(shown=Overview(seen, diagnose(seen), {}))) as server:
        html = get(server, "/").text
        quiet = [each.connections for each in seen.applications if each.is_quiet]
        assert len(quiet) == 15
        assert not any("_made" in vars(connections) for connections in quiet)
        told = json.loads(get(server, "/connections").text)
    assert html.count(f'<td class="number">{CONNECTIONS}</td>') == applications
    pids = {held["pid"] for each in told["applications"] for held in each["connections"]}
    assert len(pids) == one.used == applications * CONNECTIONS
    holders = [held["holder"] for held in told["applications"][-1]["connections"]]
    assert (holders.count("in_use"), holders.count("pooled")) == (HELD, CONNECTIONS - HELD)


def test_the_history_is_bounded() -> None:
    history = History()
    for slot in range(3 * SLOTS):
        history.add(slot * SLOT, {("db", "", ""): slot})
    assert len(history.series()["db", "", ""]) == SLOTS
    history.add(time.time(), {("db", "u", str(number)): 1 for number in range(2 * MOST)})
    assert len(history.series()) == MOST


def test_the_day_is_kept_by_scrapes_and_not_by_visits_alone(exporter: Exporter) -> None:
    watching.scrape(exporter)
    seen = exporter.overview()
    assert seen is not None
    assert list(seen.series["db", "postgres", NAME].values()) == [2]
    assert ("db", "", "") in seen.series
