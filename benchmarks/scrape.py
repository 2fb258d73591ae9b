"""What a scrape costs: pgleak beside the bare SQL, the floor, and prometheus-postgres-exporter, in one run.

    python benchmarks/scrape.py                 the table, at 10, 500 and 2,000 client connections
    python benchmarks/scrape.py --soak 10000    memory over that many scrapes
    python benchmarks/scrape.py --help

A PostgreSQL server is started with that many idle client connections of 20 applications. Then, round by round and
one after the other, so that whatever else the machine does hits all alike:

    pgleak    GET /metrics from `pgleak serve`, over a connection that stays open, as Prometheus does
    rows      the rows of pg_stat_activity that tell the same, fetched with psycopg2 over a held connection
    packed    pgleak's own two statements, prepared, likewise: what is left between this and pgleak is Python and HTTP
    floor     SELECT count(*) FROM pg_stat_get_activity(NULL), likewise
    peer      GET /metrics from prometheus-postgres-exporter as Debian ships and starts it

Medians of the rounds, in milliseconds, CPU time per scrape of the two exporters' own processes, and the resident memory
of pgleak after its last scrape.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2

from pgleak.demo.embedded import EmbeddedPostgres, free_port
from pgleak.postgres.queries import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

APPLICATIONS = 20
PEER = "prometheus-postgres-exporter"
ROWS = """
SELECT datname, usename, application_name, client_addr, state, backend_start, state_change, xact_start
FROM pg_stat_activity WHERE backend_type = 'client backend'
"""
FLOOR = "SELECT count(*) FROM pg_stat_get_activity(NULL)"
PREPARE = (
    f"PREPARE activity AS {load('activity')}",
    f"PREPARE server AS {load('server')}\nUNION ALL\n{load('sessions')}",
)
PACKED = ("EXECUTE activity", "EXECUTE server")

HOLD = """
import sys, psycopg2
held = []
for number in range(int(sys.argv[2])):
    held.append(psycopg2.connect(f"{sys.argv[1]}?application_name=app{number % int(sys.argv[3])}"))
    held[-1].autocommit = number % 3 > 0
    with held[-1].cursor() as cursor:
        cursor.execute("SELECT 1")
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Exporter:
    """A running exporter: its process and how to scrape it."""

    process: subprocess.Popen[bytes]
    port: int

    def cpu(self) -> float:
        """Seconds of CPU time that the process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> float:
        """Resident memory in MiB."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Scraper:
    """Asks for /metrics over one connection, as Prometheus does."""

    def __init__(self, port: int) -> None:
        self._client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def __call__(self) -> bytes:
        accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
        self._client.request("GET", "/metrics", headers={"Accept": accept, "Accept-Encoding": "gzip"})
        answer = self._client.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"port {self._client.port}: {answer.status}")
        return body

    def close(self) -> None:
        self._client.close()


@contextlib.contextmanager
def exporter(command: Sequence[str], port: int, environment: dict[str, str]) -> Iterator[Exporter]:
    """Start an exporter and wait until it answers."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 30
        while True:
            try:
                Scraper(port)()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{command[0]} does not answer") from None
                time.sleep(0.05)
        yield Exporter(process, port)
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def crowd(dsn: str, number: int) -> Iterator[None]:
    """Hold so many client connections open, in a process of their own."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, dsn, str(number), str(APPLICATIONS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    try:
        if process.stdout.readline() != b"ready\n":
            raise SystemExit("the client connections could not be opened")
        yield
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def pgleak(dsn: str) -> contextlib.AbstractContextManager[Exporter]:
    port = free_port()
    command = [sys.executable, "-m", "pgleak", "serve", "--listen", f"127.0.0.1:{port}", "--log-level", "error"]
    return exporter(command, port, {"PGLEAK_DSN": dsn})


def peer(dsn: str) -> contextlib.AbstractContextManager[Exporter]:
    path = shutil.which(PEER)
    if not path:
        raise SystemExit(f"{PEER} is missing: apt install {PEER} (or --no-peer)")
    port = free_port()
    command = [path, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    return exporter(command, port, {"DATA_SOURCE_NAME": f"{dsn}?sslmode=disable"})


def measured(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Medians in milliseconds; all take their turn in every round."""
    took: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 3):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            if turn >= 3:  # the first rounds connect, prepare and fill caches
                took[name].append((time.perf_counter() - started) * 1000)
    return {name: statistics.median(times) for name, times in took.items()}


def cpu_per_scrape(one: Exporter, scrape: Scraper, number: int) -> float:
    before = one.cpu()
    for _ in range(number):
        scrape()
    return (one.cpu() - before) / number * 1000


def table(version: int, sizes: Sequence[int], rounds: int, *, with_peer: bool) -> None:
    print(
        f"PostgreSQL {version}, Python {platform.python_version()}, {os.cpu_count()} cores; {rounds} rounds, medians in ms\n"
    )
    print(
        "| connections | pgleak | rows | packed | floor | peer | /rows | /packed | /floor | /peer | CPU pgleak | CPU peer | MiB pgleak |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for size in sizes:
        with contextlib.ExitStack() as stack:
            settings = {"max_connections": size + 20, "track_activity_query_size": 1024}
            server = stack.enter_context(EmbeddedPostgres(version=version, settings=settings))
            stack.enter_context(crowd(server.dsn(), size))
            ours = stack.enter_context(pgleak(server.dsn()))
            scrape = stack.enter_context(contextlib.closing(Scraper(ours.port)))
            session = stack.enter_context(contextlib.closing(psycopg2.connect(server.dsn())))
            session.autocommit = True
            cursor = session.cursor()
            for statement in ("SET enable_sort = off", *PREPARE):  # as in pgleak's own session
                cursor.execute(statement)

            def run(*statements: str, cursor: psycopg2.extensions.cursor = cursor) -> None:
                for statement in statements:
                    cursor.execute(statement)
                    cursor.fetchall()

            contestants: dict[str, Callable[[], object]] = {
                "pgleak": scrape,
                "rows": lambda: run(ROWS),
                "packed": lambda: run(*PACKED),
                "floor": lambda: run(FLOOR),
            }
            theirs = None
            if with_peer:
                theirs = stack.enter_context(peer(server.dsn()))
                contestants["peer"] = stack.enter_context(contextlib.closing(Scraper(theirs.port)))
            ms = measured(contestants, rounds)
            ratios = [
                ms["pgleak"] / ms[name] if name in ms else float("nan") for name in ("rows", "packed", "floor", "peer")
            ]
            cpu = cpu_per_scrape(ours, scrape, rounds)
            cpu_peer = cpu_per_scrape(theirs, Scraper(theirs.port), rounds) if theirs else float("nan")
            times = [ms.get(name, float("nan")) for name in ("pgleak", "rows", "packed", "floor", "peer")]
            cells = (
                [f"{time:.1f}" for time in times]
                + [f"{ratio:.2f}" for ratio in ratios]
                + [f"{cpu:.1f}", f"{cpu_peer:.1f}", f"{ours.resident():.1f}"]
            )
            print(f"| {size} | {' | '.join(cells)} |", flush=True)


def soak(version: int, scrapes: int) -> None:
    """Print the exporter's resident memory while it is scraped."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EmbeddedPostgres(version=version))
        stack.enter_context(crowd(server.dsn(), 50))
        ours = stack.enter_context(pgleak(server.dsn()))
        scrape = stack.enter_context(contextlib.closing(Scraper(ours.port)))
        print("\n| scrapes | resident MiB |\n|---|---|")
        for number in range(scrapes + 1):
            if number % max(scrapes // 10, 1) == 0:
                print(f"| {number} | {ours.resident():.1f} |", flush=True)
            scrape()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", type=int, default=16, help="major version of PostgreSQL (default 16)")
    parser.add_argument("--sizes", default="10,500,2000", help="numbers of client connections (default 10,500,2000)")
    parser.add_argument("--rounds", type=int, default=40, help="rounds per size (default 40)")
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="also watch the memory over N scrapes")
    parser.add_argument("--no-peer", action="store_true", help=f"without {PEER}")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    table(options.version, sizes, options.rounds, with_peer=not options.no_peer)
    if options.soak:
        soak(options.version, options.soak)


if __name__ == "__main__":
    main()
