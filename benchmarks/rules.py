"""What the rules cost: time per evaluation in a real Prometheus, on one core, by number of applications.

    python benchmarks/rules.py                     100, 1,000 and 10,000 applications; a quarter of an hour
    python benchmarks/rules.py 100                 another number

For each number a Prometheus of its own gets a history, made with `promtool tsdb create-blocks-from openmetrics`, then scrapes
an endpoint with that many applications (50 on a server, each with one pool) once a minute and evaluates all of rules.yml.

The history has what the rules look back at, as far and as dense as they do: what is recorded every 15 minutes over 14
days, what is recorded or scraped every minute over the hours that a range or an offset reaches. More would lie on the disk
and never be read. One application in a hundred is suspected.

Every group is evaluated once a minute here, so that the slow ones are seen as well. What counts is the processor time of the
whole Prometheus, its scrape included, because it is the same on a busy machine; `by group` divides it by the durations that
Prometheus reports, and the total weighs each group by its real interval. GOMAXPROCS=1 keeps it on one core.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
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
from typing import TYPE_CHECKING, Any

import yaml
from prometheus_client.utils import floatToGoString

from pgleak.demo.embedded import LOOPBACK, free_port
from pgleak.holders.metrics import JOIN
from pgleak.metrics import AGE_BUCKETS, SERVER_HALF
from pgleak.pool.merged import SHARED_FOLDER
from pgleak.pool.metrics import IN_PROCESS_HALF

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES = Path(__file__).parent.parent / "dashboards" / "rules.yml"
SIZES = (100, 1_000, 10_000)
PER_SERVER = 50
MINUTE, DAY = 60, 86_400
KEPT = 14 * DAY
BLOCK = 54 * 3600  # a length that Prometheus' own compaction makes
ROUNDS = 2

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}
_DURATION = re.compile(r"(\d+)([smhdw])")
_SELECTOR = re.compile(r"([a-zA-Z_][\w:]*)(?:\{[^}]*\})?(?:\[([^\]:]+)[^\]]*\])?(?:\s+offset\s+(\w+))?")
_HEALTHY = {
    "pgleak_connections": 3,
    "pgleak_used_connections": 450,
    "pgleak_usable_connections": 970,
    "pgleak_up": 1,
    "pgleak_login_success": 1,
    "pgleak_stats_visible": 1,
    "pgleak_state_folder_readable": 1,
    "sqlalchemy_pool_processes": 4,
    "sqlalchemy_pool_engines": 4,
    "sqlalchemy_pool_server_connections_max": 15,
}
_LEVELS = {
    "application": ("server", "usename", "application_name"),
    "server": ("server",),
    "role": ("server", "usename"),
    "database": ("server", "datname"),
}
_VALUES = {
    "state": ("active", "idle", "idle in transaction"),
    "evidence": ("stuck_in_transaction", "never_reused", "passed_over"),
    "reason": ("slots_exhausted", "timeout", "other"),
    "owner": ("alive",),
    "holder": ("pooled", "unclaimed"),
    "over": ("15m", "1h"),
    "le": (*map(floatToGoString, AGE_BUCKETS), "+Inf"),
    "address": ("db:5432",),
}


@dataclass(frozen=True)
class Family:
    """A name with its label sets, and how far and how densely it is looked back at."""

    name: str
    labels: tuple[dict[str, tuple[str, ...]], ...]  # alternatives; each label with its values for one application
    level: str  # application or server
    step: int
    reach: int
    is_scraped: bool

    def series(self, applications: int, target: str = "") -> Iterator[tuple[str, int]]:
        """Yield each series with its value; `target` is what a scrape adds."""
        rare = "suspected" in self.name
        step = {"application": 100 if rare else 1, "server": PER_SERVER}[self.level]
        for number in range(0, applications, step):
            own = {
                "server": (f"db{number // PER_SERVER}",),
                "usename": (f"user{number % 7}",),
                **dict.fromkeys(("application_name", "application", "pool", "site", "datname"), (f"app{number}",)),
            }
            for alternative in self.labels:
                pairs = [[f'{key}="{value}"' for value in own.get(key, values)] for key, values in alternative.items()]
                for chosen in itertools.product(*pairs):
                    labels = ",".join((*chosen, target) if target else chosen)
                    yield f"{self.name}{{{labels}}}", self._value(number)

    def _value(self, number: int) -> int:
        """What is there where nothing is wrong; in one application of a hundred, something is."""
        if number % 100 == 0 and ("suspect" in self.name or "overdue" in self.name):
            return 12
        if self.is_scraped:
            return _HEALTHY.get(self.name, 0)
        return 0 if "suspect" in self.name else 9


def seconds(duration: str) -> int:
    return sum(int(number) * _UNITS[unit] for number, unit in _DURATION.findall(duration or ""))


def families(groups: list[dict[str, Any]]) -> list[Family]:
    """All that the rules read."""
    reach: dict[str, int] = {}
    for rule in (rule for group in groups for rule in group["rules"]):
        for name, window, offset in _SELECTOR.findall(re.sub(r'"[^"]*"', '""', rule["expr"])):
            reach[name] = max(reach.get(name, 0), seconds(window) + seconds(offset) + 5 * MINUTE)
    found = []
    for spec in (*SERVER_HALF, *IN_PROCESS_HALF, *SHARED_FOLDER, *JOIN):
        for name, more in ((spec.name, ()), (f"{spec.name}_bucket", ("le",))):
            if name in reach:
                level = "application" if {"application_name", "pool", "application"} & set(spec.labels) else "server"
                own = {key: _VALUES.get(key, ("",)) for key in (*spec.labels, *more)}
                found.append(Family(name, (own,), level, MINUTE, reach[name], is_scraped=True))
    recorded: dict[str, list[tuple[dict[str, Any], int]]] = {}
    for group in groups:
        for rule in group["rules"]:
            if "record" in rule:
                recorded.setdefault(rule["record"], []).append((rule, seconds(group.get("interval", "1m"))))
    for name, rules in recorded.items():
        own = dict.fromkeys(_LEVELS[name.partition(":")[0]], ("",))
        if name.startswith("application:pgleak_idle_connections"):
            own["over"] = _VALUES["over"]  # handed on by what they are recorded from
        level = "application" if "application_name" in own else "server"
        labels = [{**own, **{key: (str(value),) for key, value in rule.get("labels", {}).items()}} for rule, _ in rules]
        step = max(step for _, step in rules)
        # What is slow enough to be kept for long is kept for all of the time.
        far = KEPT if reach.get(name, 0) > DAY else reach.get(name, 0)
        found.append(Family(name, tuple(labels), level, step, far, is_scraped=False))
    return found


def backfill(data: Path, everything: list[Family], applications: int, now: int, target: str) -> int:
    """Write the history, one block after the other; return the number of samples."""
    total = 0
    for start in range((now - KEPT) // BLOCK * BLOCK, now, BLOCK):
        text = data.parent / "history.txt"
        with text.open("w") as output:
            for family in everything:
                first = max(start, (now - family.reach) // family.step * family.step)
                times = [f" {moment}\n" for moment in range(first, min(start + BLOCK, now), family.step)]
                if times:
                    output.write(f"# TYPE {family.name} unknown\n")
                    for series, value in family.series(applications, target if family.is_scraped else ""):
                        sample = f"{series} {value}"
                        output.write(sample + sample.join(times))
                        total += len(times)
            output.write("# EOF\n")
        options = [f"--max-block-duration={BLOCK}s", "-q"]
        subprocess.run(["promtool", "tsdb", "create-blocks-from", *options, "openmetrics", text, data], check=True)
        text.unlink()
    return total


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


def measure(groups: list[dict[str, Any]], applications: int, folder: Path) -> dict[str, float]:
    """Return the processor seconds per evaluation of each group, and the resident memory in bytes under ""."""
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
        shares, used = watch(process, port, folder / "log")
        memory = int((Path("/proc") / str(process.pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    finally:
        process.terminate()
        process.wait()
        endpoint.shutdown()
        endpoint.server_close()
    return {**{name: used * share / sum(shares.values()) for name, share in shares.items()}, "": memory}


def processor_seconds(pid: int) -> float:
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(process: subprocess.Popen[bytes], port: int, log: Path) -> tuple[dict[str, float], float]:
    """Return how long each group takes, in the median, and the processor time of one round of all of them.

    The first round is not counted: it warms up.
    """
    seen: dict[str, dict[str, float]] = {}
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
        rounds = min(map(len, seen.values())) if seen else 0
        if rounds >= 1 and begun is None:
            begun = (processor_seconds(process.pid), rounds)
        if begun is not None and rounds >= begun[1] + ROUNDS:
            used = (processor_seconds(process.pid) - begun[0]) / (rounds - begun[1])
            return {name: statistics.median(list(found.values())[1:]) for name, found in seen.items()}, used
        time.sleep(5)


def main() -> None:
    for program in ("prometheus", "promtool"):
        assert shutil.which(program), f"{program} is missing: apt install prometheus"
    groups = yaml.safe_load(RULES.read_text())["groups"]
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    table: dict[str, dict[int, float]] = {}
    for applications in sizes:
        with tempfile.TemporaryDirectory(prefix="pgleak-rules-") as folder:
            for name, value in measure(groups, applications, Path(folder)).items():
                table.setdefault(name, {})[applications] = value
    memory = table.pop("")
    print(f"\n{'processor seconds, by group':<34}{'every':>7}" + "".join(f"{size:>10,}" for size in sizes))
    for group in groups:
        times = table[group["name"]]
        print(
            f"{group['name']:<34}{group.get('interval', '1m'):>7}" + "".join(f"{times[size]:>10.3f}" for size in sizes)
        )
    weights = {group["name"]: MINUTE / seconds(group.get("interval", "1m")) for group in groups}
    totals = [sum(weight * table[name][size] for name, weight in weights.items()) for size in sizes]
    print(f"{'all groups, per minute':<41}" + "".join(f"{total:>10.3f}" for total in totals))
    print(f"{'resident memory, MB':<41}" + "".join(f"{memory[size] / 1e6:>10.0f}" for size in sizes))


if __name__ == "__main__":
    main()
