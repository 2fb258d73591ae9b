"""What each address answers."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import time
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pgleak import __version__
from pgleak.web import TargetStatus
from web_support import Client, FakeSite, get, serving

if TYPE_CHECKING:
    from pathlib import Path

SECRET_DSN = "postgresql://app:MARKED-SECRET@db.example/orders"


def test_metrics_reads_all_targets() -> None:
    site = FakeSite()
    with serving(site) as server:
        answer = get(server, "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.text))
    assert [sample.labels["server"] for family in families for sample in family.samples] == ["main", "reporting"]
    assert [target for _, target in site.asked] == [None]


def test_probe_reads_the_one_target_named() -> None:
    site = FakeSite(names=("main", "orders & stock"))
    with serving(site) as server:
        answer = get(server, "/probe?target=orders%20%26%20stock")
    assert answer.status == 200
    assert 'server="orders & stock"' in answer.text
    assert 'server="main"' not in answer.text
    assert [target for _, target in site.asked] == ["orders & stock"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("?", 400),
        ("?target=", 400),
        ("?target=main&target=reporting", 400),
        ("?target=main&target=main", 400),
        ("?target=%ff", 400),
        ("?" + "&".join(f"a{i}=1" for i in range(60)), 400),
        ("?target=other", 404),
        ("?target=MAIN", 404),
        (f"?target={SECRET_DSN}", 404),
        (f"?dsn={SECRET_DSN}", 400),
    ],
)
def test_probe_takes_named_targets_only_and_says_so_without_repeating_what_it_was_given(
    query: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    site = FakeSite()
    with caplog.at_level(logging.DEBUG), serving(site) as server:
        answer = get(server, f"/probe{query}")
    assert answer.status == status
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "MARKED-SECRET" not in answer.text + caplog.text
    assert len(answer.text) < 250
    if not query.startswith(("?target=%ff", "?a0")):
        assert "/sd" in answer.text
    assert site.asked == []


def test_service_discovery_names_each_target_at_the_address_that_was_called() -> None:
    with serving(FakeSite(names=("main", 'odd "name"'))) as server, Client(server) as client:
        client.send(b"GET /sd HTTP/1.1\r\nHost: pgleak.example:8443\r\n\r\n")
        answer = client.answer()
    assert answer.headers["content-type"] == "application/json"
    groups = json.loads(answer.text)
    assert [group["targets"] for group in groups] == [["pgleak.example:8443"]] * 2
    assert groups[1]["labels"] == {
        "__metrics_path__": "/probe",
        "__param_target": 'odd "name"',
        "__meta_pgleak_target": 'odd "name"',
        "instance": 'odd "name"',
    }


def test_service_discovery_falls_back_to_the_address_of_the_connection() -> None:
    with serving() as server, Client(server) as client:
        client.send(b"GET /sd HTTP/1.0\r\n\r\n")
        groups = json.loads(client.answer().text)
    assert groups[0]["targets"] == [f"127.0.0.1:{server.address[1]}"]


def test_prometheus_finds_and_labels_the_targets(tmp_path: Path) -> None:
    """promtool runs the very service discovery of Prometheus against /sd."""
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing; install it with: apt-get install prometheus"
    with serving() as server:
        config = tmp_path / "prometheus.yml"
        config.write_text(
            f"scrape_configs:\n- job_name: pgleak\n  http_sd_configs:\n  - url: {server.url}/sd\n", encoding="utf-8"
        )
        done = subprocess.run(
            [promtool, "check", "service-discovery", "--timeout=3s", str(config), "pgleak"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found = json.loads(done.stdout)
        address = f"{server.address[0]}:{server.address[1]}"
    assert sorted((target["labels"] for target in found), key=lambda labels: str(labels["instance"])) == [
        {
            "__address__": address,
            "__metrics_path__": "/probe",
            "__param_target": name,
            "__scheme__": "http",
            "__scrape_interval__": "1m",
            "__scrape_timeout__": "10s",
            "instance": name,
            "job": "pgleak",
        }
        for name in ("main", "reporting")
    ]


def test_health_is_about_the_process_and_readiness_about_the_site() -> None:
    site = FakeSite(is_ready=False)
    with serving(site) as server:
        assert get(server, "/-/healthy").status == 200
        assert get(server, "/-/ready").status == 503
        site.is_ready = True
        assert get(server, "/-/ready").status == 200


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "//metrics", "/probe/main", "/../metrics", "/%00", "*"])
def test_an_unknown_address_is_a_404(path: str) -> None:
    with serving() as server:
        answer = get(server, path)
    assert answer.status == 404
    assert answer.text == "There is nothing at this address. See / for what there is.\n"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "BREW"])
def test_a_wrong_method_is_a_405_that_names_the_right_ones(method: str) -> None:
    with serving() as server, Client(server) as client:
        answer = client.get("/metrics", method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_head_is_get_without_the_body() -> None:
    with serving() as server, Client(server) as client:
        for path in ("/", "/metrics", "/sd", "/-/healthy", "/nothing"):
            head = client.get(path, method="HEAD")
            full = client.get(path)
            assert head.status == full.status
            for name in ("content-type", "content-length"):
                assert head.headers[name] == full.headers[name]


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def test_the_page_shows_each_target_with_its_state_reason_address_and_age() -> None:
    known = [
        TargetStatus("main", "db.example:5432/postgres", up=True, age=7.2),
        TargetStatus("reporting", "db2.example:5432/postgres", up=False, reason="password refused", age=7300.0),
        TargetStatus("new", "service=new"),
    ]
    with serving(FakeSite(known=known)) as server:
        answer = get(server, "/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = _Page(answer.text)
    words = " ".join(page.words)
    assert f"Version {__version__}" in words
    assert "pgleak: 1 of 3 up" in words
    for row in (
        "main  up db.example:5432/postgres 7 s ago",
        "reporting  down : password refused db2.example:5432/postgres 2 h ago",
        "new  not read yet service=new never",
    ):
        assert row.replace("  ", " ") in words
    for link in ("/metrics", "/probe?target=main", "/sd", "/-/healthy", "/-/ready"):
        assert link in page.links


def test_the_page_escapes_what_comes_from_outside_and_loads_nothing() -> None:
    name, reason = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'
    status = TargetStatus(name, "<b>host</b>", up=False, reason=reason, age=1.0)
    with serving(FakeSite(known=[status])) as server:
        answer = get(server, "/")
    page = _Page(answer.text)
    assert not {"script", "img", "b", "link", "iframe"} & set(page.tags)
    assert name in page.words
    assert all(link.startswith("/") for link in page.links)
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/metrics", "/probe?target=main"])
def test_a_site_that_breaks_its_promise_is_a_500_without_details(path: str, caplog: pytest.LogCaptureFixture) -> None:
    site = FakeSite(failure=RuntimeError("cannot connect with password MARKED-SECRET"))
    with serving(site) as server, Client(server) as client:
        answer = client.get(path)
        site.failure = RuntimeError("again, with password MARKED-SECRET")
        assert client.get(path).status == 500
        site.failure = None
        assert client.get(path).status == 200, "the next scrape on the same connection goes on"
    assert answer.status == 500
    assert answer.text == "pgleak failed to make this page; its log says where.\n"
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"{path.partition('?')[0]} could not be answered: internal error (RuntimeError)")
    assert "web_support.py" in told, "the place"
    assert "MARKED-SECRET" not in told


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("3", 2.4, 2.5),
        ("3.25", 2.6, 2.75),
        ("0.6", 0.2, 0.3),  # hardly more than the offset
        ("0.4", 0.1, 0.2),
        ("1e-9", 0.0, 0.05),
        ("100", 7.9, 8.0),
        ("1e999", 7.9, 8.0),
        ("0", 7.9, 8.0),
        ("-5", 7.9, 8.0),
        ("nan", 7.9, 8.0),
        ("inf", 7.9, 8.0),
        ("ten", 7.9, 8.0),
        ("9" * 5000, 7.9, 8.0),
        ("", 7.9, 8.0),
    ],
)
def test_the_scrapers_timeout_bounds_the_read(header: str, low: float, high: float) -> None:
    """The offset is taken off, our own limit holds, and what makes no sense is ignored. Never a deadline in the past."""
    site = FakeSite()
    with serving(site, scrape_timeout=8.0, scrape_offset=0.5) as server:
        before = time.monotonic()
        assert get(server, "/metrics", X_Prometheus_Scrape_Timeout_Seconds=header).status == 200
        after = time.monotonic()
    budget_at_least, budget_at_most = site.asked[0][0] - after, site.asked[0][0] - before
    assert budget_at_most > low
    assert budget_at_least <= high
