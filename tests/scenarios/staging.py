"""Runs the programs of the matrix against a server, and keeps what each side says of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import servers
import watching
from pgleak.exporter import Exporter
from pgleak.pool import reading
from pgleak.pool.suspects import judge, piled_up
from pgleak.who.diagnosis import diagnose
from pgleak.who.words import tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.pool.reading import Reading
    from pgleak.pool.snapshot import PoolSnapshot
    from pgleak.pool.suspects import Pile, Verdict
    from pgleak.who.diagnosis import Findings

HERE = Path(__file__).parent
PATIENCE = 40.0  # seconds for a program to show what it has to show, imports on a busy machine included
SETTLED = 5.0  # seconds for server and reports to agree


@dataclass
class Run:
    """A program at work, and what was seen of it."""

    program: str
    variant: str
    process: subprocess.Popen[bytes]
    folder: Path
    found: Reading = field(default_factory=reading.Reading)
    verdicts: dict[tuple[int, int], Verdict] = field(default_factory=dict)  # by process id and checkout; as first seen
    latest: list[Verdict] = field(default_factory=list)
    piles: list[Pile] = field(default_factory=list)
    log_file: Path = Path(os.devnull)
    log: str = ""
    backends: set[int] = field(default_factory=set)
    told: Findings | None = None  # what the sidecar makes of it
    words: str = ""
    stuck: set[int] = field(default_factory=set)  # backends idle in a transaction for longer than a second

    @property
    def pools(self) -> list[PoolSnapshot]:
        return [pool for reported in self.found.processes for pool in reported.snapshot.pools]

    @property
    def reported(self) -> set[int]:
        """The backends that the processes know of."""
        return {b.pid or 0 for pool in self.pools for b in (*pool.idle, *(c.backend for c in pool.checkouts))}

    @property
    def checkouts(self) -> int:
        return sum(pool.counters.checkouts for pool in self.pools)

    def log_so_far(self) -> str:
        return self.log_file.read_text()

    def look(self) -> None:
        self.found = reading.read(self.folder)
        self.piles = [pile for reported in self.found.processes for pile in piled_up(reported.snapshot)]
        self.latest = []
        for reported in self.found.processes:
            for verdict in judge(reported.snapshot):
                self.verdicts.setdefault((reported.snapshot.process.pid, verdict.checkout.number), verdict)
                self.latest.append(verdict)


class Stage:
    """Runs programs against one server, a few at a time, each watched until it has shown what was waited for."""

    def __init__(self, server: EmbeddedPostgres, folder: Path) -> None:
        self._server = server
        self._folder = folder

    def run(self, program: str, variant: str, enough: Callable[[Run], bool]) -> Run:
        name = f"{program}-{variant}"
        folder = self._folder / name
        dsn = f"postgresql+psycopg2://postgres@127.0.0.1:{self._server.port}/postgres?application_name={name}"
        log = self._folder / f"{name}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, HERE / "launch.py", HERE / "programs" / f"{program}.py", variant],
                stdin=subprocess.PIPE,
                stderr=errors,
                env={
                    **os.environ,
                    "SCENARIO_DSN": dsn,
                    "SCENARIO_SECONDS": str(PATIENCE + 10),
                    "PGLEAK_DIR": str(folder),
                },
            )
            run = Run(program, variant, process, folder, log_file=log)
            try:
                deadline = time.monotonic() + PATIENCE
                while time.monotonic() < deadline and process.poll() is None and not enough(run):
                    time.sleep(0.1)
                    run.look()
                self._ask_the_server(run, name)
                self._ask_the_sidecar(run, name)
            finally:
                assert process.stdin is not None
                process.stdin.close()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        run.log = log.read_text()
        return run

    def _ask_the_sidecar(self, run: Run, name: str) -> None:
        """What `pgleak who --diagnose` says of this program; other programs at work on the server are left out."""
        settings = watching.settings(watching.target(self._server), pool_dir=run.folder)
        exporter = Exporter(settings)
        deadline = time.monotonic() + SETTLED
        before = None
        try:
            while True:  # until the program stands still: one that is about to block may be at work at the first look
                report = exporter.report(time.monotonic() + 8)
                mine = tuple(each for each in report.applications if each.name == name)
                run.told = diagnose(replace(report, applications=mine))
                run.words = "\n".join(tell(replace(report, applications=mine), run.told))
                seen = [(each.cause.key, each.connections) for each in run.told.diagnoses]
                if seen == before or time.monotonic() > deadline:
                    return
                before = seen
                time.sleep(0.5)
        finally:
            exporter.close()

    def _ask_the_server(self, run: Run, name: str) -> None:
        """Ask at a moment around which the processes' own reports do not change, if there is one: they come later."""
        deadline = time.monotonic() + SETTLED
        while True:
            before = run.reported
            self._ask(run, name)
            asked = time.time()
            while time.monotonic() < deadline and any(r.snapshot.taken < asked for r in run.found.processes):
                time.sleep(0.05)
                run.look()
            if run.reported == before or time.monotonic() > deadline:
                return

    def _ask(self, run: Run, name: str) -> None:
        session = servers.open_connection(self._server)
        try:
            rows = servers.query(
                session,
                "SELECT pid, state LIKE 'idle in%%' AND now() - xact_start > '1 s' FROM pg_stat_activity"
                " WHERE application_name = %s",
                name,
            )
        finally:
            session.close()
        run.backends = {pid for pid, _ in rows}
        run.stuck = {pid for pid, stuck in rows if stuck}
