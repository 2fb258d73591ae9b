"""What watching a pool costs the application: thread CPU time per checkout and checkin, against bare SQLAlchemy.

    python benchmarks/checkout.py [--dsn postgresql+psycopg2://...] [--generations 5] [--rounds 20] [--only pgleak] [--check]

Without a DSN the demo's embedded PostgreSQL is started. Each variant has a process of its own, so that none leaves traces
in another's interpreter; they run by turns, a batch each, and the median of the batches counts, so that a busy machine
disturbs all of them alike. Where a process has what in memory is luck, so each variant has several processes in turn.
OpenTelemetry's instrumentation takes part where it is installed. All of it is called from as many frames deep as a request of
Flask's is under gunicorn. "pgleak installed" is the same as "pgleak" in a program that lies in site-packages, as some images have it.

"empty listeners" and "wrappers alone" are what other ways of watching cost at least: two functions for SQLAlchemy's events, and
two around its methods, that do nothing. OpenTelemetry's is compared on a checkout and checkin alone, which is what both of
them watch; its spans for statements are in the other figures, and pgleak has nothing like them.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import create_engine, event, text
from sqlalchemy.pool import Pool

from pgleak.demo.embedded import EmbeddedPostgres
from pgleak.pool import api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import Engine

TARGET_MICROSECONDS = 4.0
TARGET_SELECT = 0.06
REFERENCE_BARE = 5.3  # microseconds, on the machine for which the target was set
TARGET_OTEL = 7.0
FRAMES = 40


def pool_only(engine: Engine) -> None:
    engine.raw_connection().close()


def select(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(SELECT)


SELECT = text("SELECT 1")


def connect(engine: Engine) -> None:
    with engine.connect():
        pass


@contextlib.contextmanager
def bare(_engine: Engine) -> Iterator[None]:
    yield


@contextlib.contextmanager
def empty_listeners(engine: Engine) -> Iterator[None]:
    def nothing(*_: Any) -> None:
        pass

    with _listening(engine, nothing, nothing):
        yield


@contextlib.contextmanager
def full_stack(engine: Engine) -> Iterator[None]:
    """HikariCP's method: an exception's worth of stack, kept while the connection is out."""
    held: dict[int, traceback.StackSummary] = {}

    def checkout(_connection: Any, record: Any, _proxy: Any) -> None:
        held[id(record)] = traceback.extract_stack()

    def checkin(_connection: Any, record: Any) -> None:
        held.pop(id(record), None)

    with _listening(engine, checkout, checkin):
        yield


@contextlib.contextmanager
def pgleak(engine: Engine) -> Iterator[None]:
    api.instrument(engine)
    try:
        yield
    finally:
        api.uninstrument(engine)


@contextlib.contextmanager
def wrappers_alone(_engine: Engine) -> Iterator[None]:
    """The least that a wrapper costs which calls what it wraps: a frame more on each way."""
    originals: dict[str, Any] = {name: vars(Pool)[name] for name in ("connect", "_return_conn")}
    take, give_back = originals.values()

    def connect(self: Pool) -> Any:
        return take(self)

    def return_conn(self: Pool, record: Any) -> Any:
        return give_back(self, record)

    for name, wrapper in zip(originals, (connect, return_conn), strict=True):
        setattr(Pool, name, wrapper)
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(Pool, name, original)


@contextlib.contextmanager
def opentelemetry(engine: Engine) -> Iterator[None]:
    # looked up by name: it is not installed with pgleak, and the benchmark runs without it
    load = importlib.import_module
    instrumentor = load("opentelemetry.instrumentation.sqlalchemy").SQLAlchemyInstrumentor()
    traces, meters = load("opentelemetry.sdk.trace").TracerProvider(), load("opentelemetry.sdk.metrics").MeterProvider()
    instrumentor.instrument(engine=engine, tracer_provider=traces, meter_provider=meters)
    try:
        yield
    finally:
        instrumentor.uninstrument()


@contextlib.contextmanager
def _listening(engine: Engine, checkout: Callable[..., None], checkin: Callable[..., None]) -> Iterator[None]:
    event.listen(engine, "checkout", checkout)
    event.listen(engine, "checkin", checkin)
    try:
        yield
    finally:
        event.remove(engine, "checkout", checkout)
        event.remove(engine, "checkin", checkin)


#: What is done in a turn, and how many turns make a batch.
WORKS: dict[str, tuple[Any, int]] = {"pool": (pool_only, 1000), "connect": (connect, 1000), "select": (select, 200)}
TITLES = {
    "pool": "checkout and checkin, nothing else",
    "connect": "connect and close, no statement: the same checkout as below, while it is in the processor's caches",
    "select": "SELECT 1 on a local server",
}
SWITCHES: dict[str, Any] = {
    "bare": bare,
    "empty listeners": empty_listeners,
    "wrappers alone": wrappers_alone,
    "pgleak": pgleak,
    "pgleak installed": pgleak,
    "full stack": full_stack,
    "opentelemetry": opentelemetry,
}


class Process:
    """A process that runs a batch when it is told to, and says how long one turn took."""

    def __init__(self, name: str, url: str, program: Path) -> None:
        self.name = name
        command = [sys.executable, str(program), "--worker", name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "BENCHMARK_DSN": url}
        )

    def run(self, work: str, batch: int) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{work} {batch}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def worker(name: str, frames: int) -> None:
    """Work in this process, from as many frames deep."""
    if frames:
        worker(name, frames - 1)
        return
    engine = create_engine(os.environ["BENCHMARK_DSN"])
    with SWITCHES[name](engine):
        gc.disable()
        for line in sys.stdin:
            work, batch = WORKS[line.split()[0]][0], int(line.split()[1])
            for _ in range(batch // 10):
                work(engine)  # until the processor's caches hold this process again
            began = time.thread_time_ns()
            for _ in range(batch):
                work(engine)
            print((time.thread_time_ns() - began) / batch / 1000, flush=True)
            gc.collect()
        gc.enable()
    engine.dispose()


@dataclass(frozen=True)
class Result:
    name: str
    medians: tuple[float, ...]  # of each process, microseconds

    @property
    def median(self) -> float:
        return statistics.median(self.medians)

    @property
    def spread(self) -> float:
        """How far processes that do the same are apart: memory is laid out anew in each, for better or worse."""
        return max(self.medians) - min(self.medians)


def measure(names: list[str], url: str, *, generations: int, rounds: int) -> dict[str, list[Result]]:
    """What one turn of each work takes, with each variant in as many processes, one after the other, as generations."""
    medians: dict[str, dict[str, list[float]]] = {work: {name: [] for name in names} for work in WORKS}
    choose = random.Random(1)
    for _ in range(generations):
        with contextlib.ExitStack() as stack:
            here = Path(__file__)
            installed = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "site-packages" / here.name
            installed.parent.mkdir()
            shutil.copy(here, installed)
            programs = {name: installed if name.endswith("installed") else here for name in names}
            processes = [
                stack.enter_context(contextlib.closing(Process(name, url, program)))
                for name, program in programs.items()
            ]
            for work, (_, batch) in WORKS.items():
                times: dict[str, list[float]] = {name: [] for name in names}
                for process in processes:
                    for _ in range(3):
                        process.run(work, batch)  # until the interpreter has specialised what runs
                for _ in range(rounds):
                    choose.shuffle(processes)  # nobody always runs after the same other, or after itself
                    for process in processes:
                        times[process.name].append(process.run(work, batch))
                for name in names:
                    medians[work][name].append(statistics.median(times[name]))
    return {work: [Result(name, tuple(of[name])) for name in names] for work, of in medians.items()}


def show(title: str, results: list[Result]) -> None:
    bare = results[0]
    print(f"\n{title}\n{'variant':<19}{'median us':>10}{'over bare':>11}{'ratio':>8}{'processes differ by':>21}")
    for result in results:
        print(
            f"{result.name:<19}{result.median:>10.2f}{result.median - bare.median:>+11.2f}"
            f"{result.median / bare.median:>8.3f}{result.spread:>21.2f}"
        )


def verdict(results: dict[str, list[Result]]) -> bool:
    """Whether the promises hold, each said in a line."""
    bare = {work: of[0].median for work, of in results.items()}
    over = {work: {each.name: each.median - bare[work] for each in of} for work, of in results.items()}
    pool, select_ratio = over["pool"]["pgleak"], over["select"]["pgleak"] / bare["select"]
    scaled = pool / bare["pool"] * REFERENCE_BARE
    promises = [
        (
            (
                f"{pool:+.2f} us per checkout and checkin, that is {scaled:+.2f} us on a machine where bare takes "
                f"{REFERENCE_BARE} us (at most {TARGET_MICROSECONDS:+} there)"
            ),
            scaled <= TARGET_MICROSECONDS,
        ),
        (
            f"{select_ratio:+.1%} on a SELECT 1 (at most {TARGET_SELECT:+.0%})",
            select_ratio <= TARGET_SELECT,
        ),
    ]
    if "opentelemetry" in over["pool"]:
        times = {work: of["opentelemetry"] / of["pgleak"] for work, of in over.items()}
        promises.append(
            (
                (
                    f"{times['pool']:.1f} times cheaper than OpenTelemetry's for a checkout and checkin (at least "
                    f"{TARGET_OTEL:.0f}); with a Connection {times['connect']:.0f} times, with a SELECT 1 {times['select']:.0f} times"
                ),
                times["pool"] >= TARGET_OTEL,
            )
        )
    print()
    for line, kept in promises:
        print(f"{'kept  ' if kept else 'BROKEN'} {line}")
    return all(kept for _, kept in promises)


@contextlib.contextmanager
def database(dsn: str | None) -> Iterator[str]:
    if dsn is not None:
        yield dsn
        return
    with EmbeddedPostgres(16) as server:
        yield f"postgresql+psycopg2://postgres@127.0.0.1:{server.port}/postgres"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsn")
    parser.add_argument("--generations", type=int, default=5, help="processes of each variant, one after the other")
    parser.add_argument("--rounds", type=int, default=20, help="batches in each process")
    parser.add_argument("--only", default="", help="these variants beside bare and pgleak, separated by commas")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a promise is broken")
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, FRAMES)
        return 0
    only = [name.strip() for name in arguments.only.split(",") if name.strip()]
    if unknown := set(only) - set(SWITCHES):
        parser.error(f"--only: no variant {', '.join(sorted(unknown))}; there are {', '.join(SWITCHES)}")
    names = [name for name in SWITCHES if name in {"bare", "pgleak", *(only or SWITCHES)}]
    if "opentelemetry" in names and not _has_opentelemetry():
        names.remove("opentelemetry")
    print(f"Python {platform.python_version()}, SQLAlchemy {sqlalchemy.__version__}")
    with database(arguments.dsn) as url:
        results = measure(names, url, generations=arguments.generations, rounds=arguments.rounds)
    for work, title in TITLES.items():
        show(f"{title}; thread CPU time", results[work])
    kept = verdict(results)
    return 1 if arguments.check and not kept else 0


def _has_opentelemetry() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.instrumentation.sqlalchemy") is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main())
