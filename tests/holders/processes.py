"""Starts the processes of these tests, and asks both sides what they see."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import servers
import watching
from pgleak.holders.claims import claims_of
from pgleak.holders.join import IMPRECISION, Join, join
from pgleak.pool import reading
from pgleak.postgres.backends import ServerBackend, backends
from pgleak.postgres.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.holders.join import Held

READ = {"db0": 0.0}  # one reading of the first server
APPLICATION = Path(__file__).parent / "application.py"


def tool(name: str, package: str) -> str:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    assert path, f"{name} is missing: apt install {package}"
    return path


def url(server: EmbeddedPostgres, name: str, address: str = "") -> str:
    return f"postgresql+psycopg2://postgres@{address or f'127.0.0.1:{server.port}'}/postgres?application_name={name}"


@dataclass
class Fleet:
    """Processes that share a folder of state files."""

    folder: Path
    running: list[subprocess.Popen[str]]

    def start(self, *arguments: str, before: Iterable[str] = (), reports: bool = True) -> subprocess.Popen[str]:
        """Start application.py and wait until it has what it should have."""
        before_it = self.connections()
        environment = {"PGLEAK_DIR": str(self.folder)} if reports else {}
        process = subprocess.Popen(
            [*before, sys.executable, str(APPLICATION), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if reports:  # files are written every 0.2 s
            servers.wait_until(lambda: self.connections() >= before_it + len(arguments) - 1)
        return process

    def connections(self) -> int:
        return sum(1 for _ in claims_of(self.report().processes))

    def report(self) -> reading.Reading:
        return reading.read(self.folder)

    def close(self) -> None:
        for process in self.running:
            process.communicate(timeout=20)


def seen(*servers: EmbeddedPostgres) -> list[ServerBackend]:
    """The backends of these servers, which are called db0, db1 ..."""
    found: list[ServerBackend] = []
    for number, server in enumerate(servers):
        one = watching.target(server, name=f"db{number}")
        reader = Reader(one, watching.settings(one))
        try:
            found += backends(watching.read(reader))
        finally:
            reader.close()
    return found


def joined(fleet: Fleet, *servers: EmbeddedPostgres) -> Join:
    return join(seen(*servers), fleet.report().processes)


def of(found: Join, name: str) -> list[Held]:
    return [held for held in found.held if held.backend.application_name == name]


def settled(fleet: Fleet, *servers: EmbeddedPostgres, expected: dict[str, list[str]]) -> Join:
    """The join, as soon as each application is held as expected: files are written every 0.2 s."""
    deadline = time.monotonic() + 15
    while True:
        found = joined(fleet, *servers)
        holders = {name: sorted(held.holder for held in of(found, name)) for name in expected}
        if holders == {name: sorted(each) for name, each in expected.items()}:
            return found
        assert time.monotonic() < deadline, f"{holders}, {found.unplaced}"
        time.sleep(0.1)


def outlived(fleet: Fleet, found: Join) -> reading.Reading:
    """What every process says that reported after the youngest connection was opened."""
    youngest = max(held.backend.started or 0.0 for held in found.held) + IMPRECISION
    servers.wait_until(lambda: all(each.snapshot.taken > youngest for each in fleet.report().processes))
    return fleet.report()
