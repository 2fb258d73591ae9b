"""The page in a real browser: read without scripts, in both colour schemes, on any screen, by keyboard and by ear.

Pictures of it are kept with `pytest --basetemp=FOLDER tests/ship/page.py`, in pictures0.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

import servers
import watching
from holders.processes import APPLICATION, Fleet, url
from pgleak.exporter import Exporter
from pgleak.who.history import SLOT
from ship.browser import Browser, browsing
from web_support import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.who.diagnosis import Diagnosis

LINE = next(n for n, text in enumerate(APPLICATION.read_text().splitlines(), 1) if text.endswith("# TAKEN"))
NAME = "an-application-whose-name-is-longer-than-a-telephone-is-wide"
REFRESH = 31_000  # milliseconds after which the page has come again
READABLE = 4.5  # contrast of text: WCAG 2.1, success criterion 1.4.3

#: The least contrast of any text, with the text that has it; colours of the page have no transparency.
CONTRAST = """(() => {
  const light = rgb => { const [r, g, b] = rgb.match(/[\\d.]+/g).map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!c.endsWith(", 0)")) return light(c); } return 1; };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  for (let node; node = texts.nextNode();) { if (!node.data.trim()) continue;
    const pair = [light(getComputedStyle(node.parentElement).color), ground(node.parentElement)].sort((a, b) => b - a);
    found.push([(pair[0] + .05) / (pair[1] + .05), node.data.trim().slice(0, 60)]); }
  return found.sort((a, b) => a[0] - b[0])[0];
})()"""
#: What has the focus: its kind, its text, and whether that shows.
FOCUS = """(() => { const e = document.activeElement; return [e.tagName, e.getAttribute("aria-label") || e.innerText,
  getComputedStyle(e).outlineStyle !== "none"]; })()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def address(postgres16: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page with a leak, a healthy neighbour, and three hours of history."""
    fleet = Fleet(tmp_path_factory.mktemp("page") / "state", [])
    ago = [18 * SLOT]
    exporter = Exporter(
        watching.settings(watching.target(postgres16), pool_dir=fleet.folder), now=lambda: time.time() - ago[0]
    )
    try:
        fleet.start(url(postgres16, "neighbour"), "in_use", "pooled")
        while ago[0] > 0:
            watching.scrape(exporter)
            ago[0] -= SLOT
            if ago[0] == 9 * SLOT:
                fleet.start(url(postgres16, NAME), "overdue", "overdue", "overdue")
        with serving(exporter) as server:
            host, port = server.address[:2]
            # A page may show a reading of the last 15 s, and those here were made in the past.
            servers.wait_until(lambda: [each.server for each in found(exporter)] == ["db"], 40)
            yield f"http://{host}:{port}/"
    finally:
        exporter.close()
        fleet.close()


def found(exporter: Exporter) -> tuple[Diagnosis, ...]:
    seen = exporter.overview()
    return seen.findings.diagnoses if seen else ()


@pytest.fixture
def page(browser: Browser, address: str) -> Browser:
    """The page as it is first seen, on a desk."""
    browser.window(1280)
    browser.prefer("light")
    browser.events.clear()
    browser.open(address)
    return browser


def text(page: Browser) -> str:
    return " ".join(str(page.evaluate("document.body.innerText")).split())


def test_the_facts_stand_there_without_scripts(page: Browser) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.call("Page.reload")
        page.wait_for("Page.loadEventFired", len(page.events))
        told = text(page)
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
    for fact in (
        "3 connections leaked",
        f"{NAME} on db: 3 of 3 connections",
        "the function that took it has ended without closing it",
        f"application.py:{LINE} in __main__:take",
        "of 97 taken",
        "select pg_terminate_backend(",
        "2 processes reporting, 0 of them hanging.",
    ):
        assert fact in told, told


def test_nothing_else_is_fetched_and_nothing_complained_of(page: Browser, address: str) -> None:
    fetched = [told["request"]["url"] for name, told in page.events if name == "Network.requestWillBeSent"]
    complaints = [told for name, told in page.events if name in {"Log.entryAdded", "Runtime.exceptionThrown"}]
    assert fetched == [address]
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read_in_both_schemes(page: Browser, pictures: Path, scheme: str) -> None:
    page.prefer(scheme)
    least, where = page.evaluate(CONTRAST)
    assert least >= READABLE, where
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor").strip("rgb()").split(", ")
    assert all(int(each) > 200 if scheme == "light" else int(each) < 50 for each in ground)
    page.picture(pictures / f"{scheme}.png")


@pytest.mark.parametrize("width", [320, 768, 1920])
def test_no_screen_is_too_narrow(page: Browser, pictures: Path, width: int) -> None:
    """Wide tables are scrolled by themselves; 320 is a telephone, and a desk at 400 % (WCAG 2.1, 1.4.10)."""
    page.window(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelector('h2').getBoundingClientRect().right") <= width
    page.picture(pictures / f"{width}.png")


def test_the_day_is_drawn(page: Browser) -> None:
    """A line that goes up where the leak began, with the same in words."""
    lines = page.evaluate(
        "[...document.querySelectorAll('svg')].map(e => [e.getAttribute('aria-label'), e.querySelector('polyline').getBBox().width])"
    )
    assert lines
    assert all(width > 5 for _, width in lines), lines
    assert any(told.startswith("from 3 to 6") for told, _ in lines), lines


@pytest.mark.parametrize(("query", "comes"), [("", True), ("?refresh=off", False)], ids=["by itself", "told not to"])
def test_it_comes_again_by_itself_until_told_not_to(address: str, tmp_path: Path, query: str, comes: bool) -> None:
    """In a browser of its own, whose clock runs fast and then stands still."""
    with browsing(tmp_path) as browser:
        browser.open(address + query)
        since = len(browser.events)
        browser.call("Emulation.setVirtualTimePolicy", policy="advance", budget=REFRESH)
        browser.wait_for("Emulation.virtualTimeBudgetExpired", since)
        fetched = {
            told["request"]["url"] for name, told in browser.events[since:] if name == "Network.requestWillBeSent"
        }
    assert fetched == ({address} if comes else set())


def test_the_keyboard_reaches_everything_and_opens_a_stack(page: Browser, address: str) -> None:
    page.open(f"{address}?refresh=off")
    page.window(480)
    everything = page.evaluate(
        "[...document.querySelectorAll('a, summary, .scroll')].map(e => [e.tagName, e.getAttribute('aria-label') || e.innerText])"
    )
    reached = []
    for _ in everything:
        page.press("Tab", 9)
        *what, shows = page.evaluate(FOCUS)
        assert shows, what
        reached.append(what)
        if what[0] == "SUMMARY" and "called from" not in text(page):
            page.press("Enter", 13)
            assert "called from" in text(page)
    assert reached == everything


def test_a_screen_reader_finds_its_way(page: Browser) -> None:
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]

    def of(role: str) -> list[dict[str, Any]]:
        return [each for each in nodes if each.get("role", {}).get("value") == role and not each["ignored"]]

    def names(role: str) -> list[str]:
        return [each.get("name", {}).get("value", "") for each in of(role)]

    levels = [
        prop["value"]["value"] for each in of("heading") for prop in each["properties"] if prop["name"] == "level"
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(deeper - level <= 1 for level, deeper in pairwise(levels))
    assert len(of("main")) == 1
    assert {"Servers", "Applications", f"Suspects of {NAME} (postgres@db)", "Targets"} <= set(names("table"))
    assert all(names("columnheader"))
    for role in ("heading", "table", "region", "image", "link", "meter"):
        assert names(role), role
        assert all(names(role)), role
    assert page.evaluate("document.documentElement.lang") == "en"
