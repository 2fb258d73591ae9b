"""A Prometheus of our own on loopback, and its HTTP API."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgleak.demo.embedded import LOOPBACK, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START_TIMEOUT = 60.0


class QueryError(Exception):
    """Prometheus refused a query; the message is its own."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer; points are (Unix time, value)."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        return self.points[-1][1]


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Asks one Prometheus. Raises :class:`QueryError` for what it refuses and ``OSError`` where it does not answer."""

    url: str

    def instant(self, expr: str, at: float) -> list[Series]:
        found = self._get("query", query=expr, time=at)["result"]
        return [Series(one["metric"], (_point(one["value"]),)) for one in found]

    def range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        found = self._get("query_range", query=expr, start=start, end=end, step=step)["result"]
        return [Series(one["metric"], tuple(map(_point, one["values"]))) for one in found]

    def label_values(self, selector: str, label: str, start: float, end: float) -> list[str]:
        found: list[str] = self._get(f"label/{label}/values", start=start, end=end, **{"match[]": selector})
        return found

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, page: str, **parameters: object) -> Any:
        url = f"{self.url}/api/v1/{page}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise QueryError(json.load(error).get("error", str(error))) from None


def _point(pair: list[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def program(name: str) -> str:
    """Return where a program is; ends with the line to type where it is missing."""
    path = shutil.which(name)
    if not path:
        raise SystemExit(f"{name} is missing: apt install prometheus")
    return path


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Prometheus]:
    """Start Prometheus on the data in ``folder`` / "data"; it scrapes nothing, and ends with the block."""
    config = folder / "prometheus.yml"
    config.write_text("{}")
    port = free_port()
    log = folder / "prometheus.log"
    command = [
        program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=100y", f"--web.listen-address={LOOPBACK}:{port}",
    ]  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        prometheus = Prometheus(f"http://{LOOPBACK}:{port}")
        deadline = time.monotonic() + _START_TIMEOUT
        while not prometheus.is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"prometheus does not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield prometheus
    finally:
        process.terminate()
        process.wait(30)


def backfill(folder: Path, lines: Iterator[str]) -> None:
    """Put samples (OpenMetrics with timestamps) into the data of ``folder``, before Prometheus starts on it."""
    text = folder / "samples.om"
    with text.open("w") as file:
        file.writelines(f"{line}\n" for line in lines)
    command = [
        program("promtool"),
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        "--quiet",
        str(text),
        str(folder / "data"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    text.unlink()
