"""What the rules cost: time per evaluation in a real Prometheus, on one core, by number of applications.

    python -m benchmarks.rules        100, 1,000 and 10,000 applications; a quarter of an hour
    python -m benchmarks.rules 100    another number

For each number a Prometheus of its own gets a history (`detection/engine/backfill`, in Go, writes its blocks), then scrapes
an endpoint with that many applications (50 on a server, each with one pool) once a minute and evaluates all of rules.yml.

The history has what the rules look back at, as far and as dense as they do: what is recorded every 15 minutes over 14
days, what is recorded or scraped every minute over the hours that a range or an offset reaches. More would lie on the disk
and never be read. One application in a hundred is suspected.

Every group is evaluated once a minute here, so that the slow ones are seen as well. What counts is the processor time of the
whole Prometheus, its scrape included, because it is the same on a busy machine; the durations that Prometheus reports divide
it among groups and rules, and the total weighs each group by its real interval. GOMAXPROCS=1 keeps it on one core.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from benchmarks.rules.history import MINUTE, ROOT, Family, backfill, families, seconds

from pgleak.demo.embedded import LOOPBACK, free_port

RULES = ROOT / "dashboards" / "rules.yml"
SIZES = (100, 1_000, 10_000)
ROUNDS = 2
DEAREST = 10  # rules that are shown by themselves


class Endpoint(ThreadingHTTPServer):
    """What an exporter of that many applications would show."""

    def __init__(self, everything: list[Family], applications: int) -> None:
        scraped = [family for family in everything if family.is_scraped]
        lines = (f"{series} {value}\n" for family in scraped for series, value in family.series(applications))
        self.page = "".join(lines).encode()
        self.size = self.page.count(b"\n")
        super().__init__((LOOPBACK, 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_GET(self) -> None:
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
    """Processor seconds per evaluation, and the resident memory in bytes."""

    groups: dict[str, float]
    rules: dict[str, float]
    memory: int


def measure(groups: list[dict[str, Any]], applications: int, folder: Path) -> Cost:
    everything = families(groups)
    now = int(time.time())
    data = folder / "data"
    started = time.monotonic()
    endpoint = Endpoint(everything, applications)
    address = f"{LOOPBACK}:{endpoint.server_port}"
    samples = backfill(data, everything, applications, now, f'job="all",instance="{address}"')
    took = time.monotonic() - started
    (folder / "rules.yml").write_text(json.dumps({"groups": [{**group, "interval": "1m"} for group in groups]}))
    config = {
        "global": {"scrape_interval": "1m", "scrape_timeout": "30s"},
        "rule_files": [str(folder / "rules.yml")],
        "scrape_configs": [{"job_name": "all", "static_configs": [{"targets": [address]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={data}",
                "--storage.tsdb.retention.time=30d",
                f"--web.listen-address={LOOPBACK}:{port}",
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, "GOMAXPROCS": "1"},
        )
    print(
        f"{applications} applications: {samples} samples of history in {took:.0f} s, {endpoint.size} series scraped",
        flush=True,
    )
    try:
        shares, rules, used = watch(process, port, folder / "log")
        memory = int((Path("/proc") / str(process.pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    finally:
        process.terminate()
        process.wait()
        endpoint.shutdown()
        endpoint.server_close()
    scale = used / sum(shares.values())
    groups_, rules_ = ({name: scale * share for name, share in each.items()} for each in (shares, rules))
    return Cost(groups_, rules_, memory)


def processor_seconds(pid: int) -> float:
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(process: subprocess.Popen[bytes], port: int, log: Path) -> tuple[dict[str, float], dict[str, float], float]:
    """Return how long each group and each rule takes, in the median, and the processor time of one round of all of them.

    The first round is not counted: it warms up.
    """
    seen: dict[str, dict[str, float]] = {}
    single: dict[str, dict[str, float]] = {}
    begun: tuple[float, int] | None = None
    deadline = time.monotonic() + 60 * (ROUNDS + 13)
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, {name: len(found) for name, found in seen.items()}
        answer = ask(port, "/api/v1/rules")
        for group in answer["groups"] if answer else ():
            errors = [rule["lastError"] for rule in group["rules"] if rule.get("lastError")]
            assert not errors, errors
            found = seen.setdefault(group["name"], {})
            if not group["lastEvaluation"].startswith("0001"):
                found[group["lastEvaluation"]] = group["evaluationTime"]
                for rule in group["rules"]:
                    name = f"{rule['name']} {rule.get('labels', {}).get('window', '')}".rstrip()
                    single.setdefault(name, {})[group["lastEvaluation"]] = rule["evaluationTime"]
        rounds = min(map(len, seen.values())) if seen else 0
        if rounds >= 1 and begun is None:
            begun = (processor_seconds(process.pid), rounds)
        if begun is not None and rounds >= begun[1] + ROUNDS:
            used = (processor_seconds(process.pid) - begun[0]) / (rounds - begun[1])
            groups, rules = (
                {name: statistics.median(list(found.values())[1:]) for name, found in each.items()}
                for each in (seen, single)
            )
            return groups, rules, used
        time.sleep(5)


def main() -> None:
    assert shutil.which("prometheus"), "prometheus is missing: apt install prometheus"
    groups = yaml.safe_load(RULES.read_text())["groups"]
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    costs = {}
    for applications in sizes:
        with tempfile.TemporaryDirectory(prefix="pgleak-rules-") as folder:
            costs[applications] = measure(groups, applications, Path(folder))
    weights = {group["name"]: MINUTE / seconds(group.get("interval", "1m")) for group in groups}
    line(f"{'processor seconds, by group':<34}{'every':>7}", [f"{size:,}" for size in sizes])
    for group in groups:
        times = [cost.groups[group["name"]] for cost in costs.values()]
        line(f"{group['name']:<34}{group.get('interval', '1m'):>7}", [f"{each:.3f}" for each in times])
    totals = [sum(weight * cost.groups[name] for name, weight in weights.items()) for cost in costs.values()]
    line(f"{'all groups, per minute':<41}", [f"{total:.3f}" for total in totals])
    line(f"{'resident memory, MB':<41}", [f"{cost.memory / 1e6:.0f}" for cost in costs.values()])
    line("\nthe costliest rules, each time", [])
    last = costs[sizes[-1]].rules
    for name in sorted(last, key=lambda name: -last[name])[:DEAREST]:
        line(f"{name:<60}", [f"{cost.rules[name]:.3f}" for cost in costs.values()])


def line(title: str, cells: list[str]) -> None:
    print(title + "".join(f"{cell:>10}" for cell in cells))


if __name__ == "__main__":
    main()
