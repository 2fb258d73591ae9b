"""A real Prometheus scrapes a real exporter on a real server, and its queries show what README promises."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import watching
from pgleak.demo.embedded import free_port
from pgleak.exporter import Exporter
from pgleak.settings import Thresholds
from pgleak.web import WebServer
from servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Connect, NewPostgres


class Prometheus:
    """A Prometheus server of the test's own, on loopback, with its data in a folder of the test's."""

    def __init__(self, folder: Path, sd_url: str) -> None:
        path = shutil.which("prometheus")
        assert path, "prometheus is missing: apt install prometheus"
        config = folder / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
            "scrape_configs:\n"
            f"  - job_name: all\n    static_configs: [{{targets: ['{urllib.parse.urlsplit(sd_url).netloc}']}}]\n"
            f"  - job_name: each\n    http_sd_configs: [{{url: '{sd_url}', refresh_interval: 1s}}]\n"
        )
        self.port = free_port()
        self.log = folder / "prometheus.log"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [
                    path,
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def query(self, expression: str) -> list[dict[str, Any]]:
        assert self.process.poll() is None, self.log.read_text()
        url = f"http://127.0.0.1:{self.port}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return found
        except OSError:
            return []

    def value(self, expression: str) -> float | None:
        found = self.query(expression)
        return float(found[0]["value"][1]) if len(found) == 1 else None

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def prometheus_of(folder: Path) -> Iterator[Any]:
    started: list[Prometheus] = []

    def start(sd_url: str) -> Prometheus:
        started.append(Prometheus(folder, sd_url))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_prometheus_sees_a_leak_grow(new_postgres: NewPostgres, connect: Connect, prometheus_of: Any) -> None:
    server = new_postgres(18)
    exporter = Exporter(watching.settings(watching.target(server, "orders"), thresholds=Thresholds(1.0, 1.0, 1.0)))
    web = WebServer(exporter, "127.0.0.1", 0)
    web.start()
    try:
        prometheus = prometheus_of(f"{web.url.rstrip('/')}/sd")
        leaking = '{job="all", server="orders", application_name="shop"}'
        count = f"sum(pgleak_connections{leaking})"
        connect(server, application_name="shop")
        wait_until(lambda: prometheus.value(count) == 1, timeout=30, what="the first connection")
        for number in range(2, 6):
            connect(server, application_name="shop")
            wait_until(partial(shows, prometheus, count, number), timeout=30, what=f"{number} connections")

        assert (prometheus.value(f"sum(delta(pgleak_connections{leaking}[1m]))") or 0) > 0
        suspects = 'sum by (application_name) (pgleak_suspect_connections{job="all"} > 0)'
        wait_until(partial(shows, prometheus, suspects, 5), timeout=30, what="five suspects")
        assert prometheus.value('pgleak_idle_seconds_bucket{job="all", application_name="shop", le="+Inf"}') == 5
        found = 'pgleak_up{job="each", instance="orders", server="orders"}'
        wait_until(partial(shows, prometheus, found, 1), timeout=30, what="the target found by service discovery")
        both = 'sum(pgleak_suspect_connections{application_name="shop"})'
        wait_until(partial(shows, prometheus, both, 10), timeout=30, what="the same suspects, scraped in both ways")
        (of_shop,) = prometheus.query(readme_queries()[0])
        assert of_shop["metric"] == {"server": "orders", "application_name": "shop"}
        assert of_shop["value"][1] == "5"
    finally:
        web.shutdown()
        exporter.close()


def shows(prometheus: Prometheus, query: str, number: float) -> bool:
    return prometheus.value(query) == number


def readme_queries() -> list[str]:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    section = readme.partition("Then ask for the suspects")[2].partition("```\n")[2].partition("```")[0]
    return [query for query in section.split("\n\n") if query.strip()]


def test_the_queries_in_the_readme_are_valid(folder: Path) -> None:
    queries = readme_queries()
    assert len(queries) == 4
    rules = folder / "rules.yml"
    entries = [{"record": f"readme:query{number}", "expr": query} for number, query in enumerate(queries)]
    rules.write_text(json.dumps({"groups": [{"name": "readme", "rules": entries}]}))
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: apt install prometheus"
    done = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"{len(queries)} rules found", done.stdout)
