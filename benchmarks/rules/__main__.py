"""What the rules cost: time per evaluation in a real Prometheus, on one core, by number of applications.

    python -m benchmarks.rules        100, 1,000 and 10,000 applications; an hour and a quarter
    python -m benchmarks.rules 100    another number; 20 minutes, or 30 for 10,000

For each number a Prometheus of its own gets a history (`detection/engine/backfill`, in Go, writes its blocks), then scrapes
an endpoint with that many applications (50 on a server, each with one pool) once a minute and evaluates all of rules.yml.

The history has what the rules look back at, as far and as dense as they do: what is recorded every 15 minutes over 14
days, what is recorded or scraped every minute over the hours that a range or an offset reaches. More would lie on the disk
and never be read. One application in a hundred is suspected.

First it only scrapes. Then every group is evaluated once a minute, twice, because the first evaluation makes the series. Then
comes what counts: a quarter of an hour with the groups' own intervals, in which the slowest is evaluated once. It is the
processor time of the whole Prometheus, because that is the same on a busy machine, less what scraping alone took. The
durations of groups and rules are what Prometheus reports: time that passed, in which others may have run. GOMAXPROCS=1 keeps
it on one core.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from benchmarks.rules.history import MINUTE, ROOT, Family, backfill, families, seconds

from pgleak.demo.embedded import LOOPBACK, free_port

if TYPE_CHECKING:
    from collections.abc import Callable

RULES = ROOT / "dashboards" / "rules.yml"
SIZES = (100, 1_000, 10_000)
SCRAPES = 2  # that are measured by themselves
PERIOD = 15 * MINUTE
LOADS = 10 * MINUTE  # no reload takes longer
POLL = 15  # seconds; each costs a little, and no group is evaluated more often than once a minute
DEAREST = 10  # rules that are shown by themselves


class Endpoint(ThreadingHTTPServer):
    """What an exporter of that many applications would show."""

    def __init__(self, everything: list[Family], applications: int) -> None:
        scraped = [family for family in everything if family.is_scraped]
        lines = (f"{series} {value}\n" for family in scraped for series, value in family.series(applications))
        self.page = "".join(lines).encode()
        self.size = self.page.count(b"\n")
        self.asked = 0
        super().__init__((LOOPBACK, 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(self.server.page)))
        self.end_headers()
        self.wfile.write(self.server.page)

    def log_message(self, *_arguments: object) -> None:
        pass


def ask(port: int, path: str) -> Any:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())["data"]
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@dataclass(frozen=True)
class Cost:
    """Seconds; memory in bytes."""

    scraping: float  # of the processor, per minute
    rules: float  # of the processor, per minute, beyond scraping
    group_times: dict[str, float]  # that one evaluation took, in the median
    rule_times: dict[str, float]
    memory: int  # resident


class Prometheus:
    """On one core, with rules that can be changed."""

    def __init__(self, folder: Path, target: str) -> None:
        self._rules, self._log = folder / "rules.yml", folder / "log"
        self._rules.write_text("{}")
        config = {
            "global": {"scrape_interval": "1m", "scrape_timeout": "30s"},
            "rule_files": [str(self._rules)],
            "scrape_configs": [{"job_name": "all", "static_configs": [{"targets": [target]}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self._port = free_port()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    "--storage.tsdb.retention.time=30d",
                    f"--web.listen-address={LOOPBACK}:{self._port}",
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "GOMAXPROCS": "1"},
            )

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def evaluate(self, groups: list[dict[str, Any]]) -> None:
        """Load them, and wait until they are those that it evaluates. Raises AssertionError when it never does."""
        self._rules.write_text(json.dumps({"groups": groups}))
        self._process.send_signal(signal.SIGHUP)
        wanted = {group["name"]: seconds(group.get("interval", "1m")) for group in groups}
        deadline = time.monotonic() + LOADS
        while {group["name"]: group["interval"] for group in self.groups()} != wanted:
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(1)

    def groups(self) -> list[dict[str, Any]]:
        """Return what it says of them, when it has time to."""
        while (answer := ask(self._port, "/api/v1/rules")) is None:
            self.check()
            time.sleep(1)
        groups: list[dict[str, Any]] = answer["groups"]
        errors = [rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")]
        assert not errors, errors
        return groups

    def check(self) -> None:
        assert self._process.poll() is None, self._log.read_text()

    @property
    def processor_seconds(self) -> float:
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory(self) -> int:
        return int((self._proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def _proc(self) -> Path:
        return Path("/proc") / str(self._process.pid)


def measure(groups: list[dict[str, Any]], applications: int, folder: Path) -> Cost:
    everything = families(groups)
    now = int(time.time())
    started = time.monotonic()
    endpoint = Endpoint(everything, applications)
    address = f"{LOOPBACK}:{endpoint.server_port}"
    samples = backfill(folder / "data", everything, applications, now, f'job="all",instance="{address}"')
    print(
        f"{applications} applications: {samples} samples of history in {time.monotonic() - started:.0f} s, "
        f"{endpoint.size} series scraped",
        flush=True,
    )
    prometheus = Prometheus(folder, address)
    try:
        scraping = _scraping(prometheus, endpoint)
        prometheus.evaluate([{**group, "interval": "1m"} for group in groups])
        _watch(prometheus, lambda found: len(found) == len(groups) and min(map(len, found.values())) >= 2)
        prometheus.evaluate(groups)
        begun, used = time.monotonic(), prometheus.processor_seconds
        found = _watch(prometheus, lambda found: len(found) == len(groups) and time.monotonic() >= begun + PERIOD)
        used = (prometheus.processor_seconds - used) * MINUTE / (time.monotonic() - begun)
        memory = prometheus.memory
    finally:
        prometheus.stop()
        endpoint.shutdown()
        endpoint.server_close()
    group_times = {name: statistics.median(each["evaluationTime"] for each in times) for name, times in found.items()}
    rule_times: dict[str, float] = {}
    for times in found.values():
        for alike in zip(*(each["rules"] for each in times), strict=True):
            name = f"{alike[0]['name']} {alike[0].get('labels', {}).get('window', '')}".rstrip()
            rule_times[name] = statistics.median(rule["evaluationTime"] for rule in alike)
    return Cost(scraping, used - scraping, group_times, rule_times, memory)


def _scraping(prometheus: Prometheus, endpoint: Endpoint) -> float:
    """Return the processor time of a scrape; the first one, which makes the series, is left out."""
    seen = []
    for asked in (2, 2 + SCRAPES):
        while endpoint.asked < asked:
            prometheus.check()
            time.sleep(0.2)
        seen.append(prometheus.processor_seconds)
    return (seen[1] - seen[0]) / SCRAPES


def _watch(
    prometheus: Prometheus, done: Callable[[dict[str, list[dict[str, Any]]]], bool]
) -> dict[str, list[dict[str, Any]]]:
    """Return all evaluations of each group from now on until it is `done`; those before now are not counted."""
    before = {group["lastEvaluation"] for group in prometheus.groups()}
    seen: dict[str, dict[str, dict[str, Any]]] = {}
    deadline = time.monotonic() + 2 * PERIOD
    while True:
        assert time.monotonic() < deadline, {name: len(found) for name, found in seen.items()}
        for group in prometheus.groups():
            if group["lastEvaluation"] not in before and not group["lastEvaluation"].startswith("0001"):  # not yet
                seen.setdefault(group["name"], {})[group["lastEvaluation"]] = group
        found = {name: list(each.values()) for name, each in seen.items()}
        if done(found):
            return found
        time.sleep(POLL)


def main() -> None:
    assert shutil.which("prometheus"), "prometheus is missing: apt install prometheus"
    groups = yaml.safe_load(RULES.read_text())["groups"]
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    costs = {}
    for applications in sizes:
        with tempfile.TemporaryDirectory(prefix="pgleak-rules-") as folder:
            costs[applications] = measure(groups, applications, Path(folder))
    line(f"{'seconds of the processor, per minute':<41}", [f"{size:,}" for size in sizes])
    line(f"{'scraping':<41}", [f"{cost.scraping:.3f}" for cost in costs.values()])
    line(f"{'all rules':<41}", [f"{cost.rules:.3f}" for cost in costs.values()])
    line(f"{'resident memory, MB':<41}", [f"{cost.memory / 1e6:.0f}" for cost in costs.values()])
    line(f"\n{'seconds that one evaluation takes':<34}{'every':>7}", [])
    for group in groups:
        times = [cost.group_times[group["name"]] for cost in costs.values()]
        line(f"{group['name']:<34}{group.get('interval', '1m'):>7}", [f"{each:.3f}" for each in times])
    line("\nthe costliest rules, each time", [])
    last = costs[sizes[-1]].rule_times
    for name in sorted(last, key=lambda name: -last[name])[:DEAREST]:
        line(f"{name:<60}", [f"{cost.rule_times[name]:.3f}" for cost in costs.values()])


def line(title: str, cells: list[str]) -> None:
    print(title + "".join(f"{cell:>10}" for cell in cells))


if __name__ == "__main__":
    main()
