"""Runs the rules over recorded scrapes in a real Prometheus engine with simulated time (``engine/``, in Go)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RULES = ROOT / "dashboards" / "rules.yml"
BASELINES = HERE / "baselines.yml"
_CACHE = ROOT / ".tools"


class EngineError(Exception):
    """The engine could not be built or run; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Scraping:
    """How well the scrapes go."""

    lost: float = 0.0  # share that fails
    every: int = 1  # minutes between two

    def __str__(self) -> str:
        return f"every {self.every} min" + (f", {self.lost:.0%} lost" if self.lost else "")


@dataclass(frozen=True, slots=True)
class Firing:
    """One alert from its begin to its end; seconds since the trace began, ``end`` None when it still fired."""

    alert: str
    server: str
    usename: str
    application_name: str
    severity: str
    begin: int
    end: int | None
    value: float


def build() -> Path:
    """Return the engine, built anew when its source changed. Raises EngineError without Go."""
    go = shutil.which("go")
    if go is None:
        raise EngineError(
            "the benchmark runs Prometheus' own engine and needs Go 1.26 or newer to build it: "
            "apt-get install golang-go, or https://go.dev/dl/"
        )
    _CACHE.mkdir(exist_ok=True)
    binary = _CACHE / "detection-engine"
    if not binary.exists():
        print(f"building the engine, {binary} (minutes, the first time) ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        [go, "build", "-o", str(binary), "."], check=False, cwd=HERE / "engine", capture_output=True, text=True
    )
    if done.returncode:
        raise EngineError(f"go build failed in {HERE / 'engine'}:\n{done.stderr[-2000:]}")
    return binary


def run(
    binary: Path,
    files: Sequence[Path],
    scraping: Scraping,
    rules: Iterable[Path] = (RULES, BASELINES),
    groups: str = "",
    *,
    together: bool = False,
) -> list[Firing]:
    """Return all alerts that fired. ``groups`` chooses groups of rules by the begin of their names.

    They are spread over their intervals, as Prometheus does; ``together``, as promtool does, all are evaluated at once.
    """
    command = [str(binary), f"-lost={scraping.lost}", f"-every={scraping.every}", f"-groups={groups}"]
    command += ["-together"] if together else []
    command += [f"-rules={path}" for path in rules]
    done = subprocess.run([*command, *map(str, files)], check=False, capture_output=True, text=True)
    if done.returncode:
        raise EngineError(f"the engine failed:\n{done.stderr[-2000:]}")
    return list(_firings(map(json.loads, done.stdout.splitlines())))


def _firings(events: Iterable[dict[str, object]]) -> Iterable[Firing]:
    begun: dict[str, Firing] = {}
    for event in events:
        labels = event["labels"]
        assert isinstance(labels, dict)
        key = json.dumps(labels, sort_keys=True)
        second = int(str(event["second"]))
        if event["firing"]:
            begun[key] = Firing(
                alert=str(event["alert"]),
                server=labels.get("server", ""),
                usename=labels.get("usename", ""),
                application_name=labels.get("application_name", ""),
                severity=labels.get("severity", ""),
                begin=second,
                end=None,
                value=float(str(event["value"])),
            )
        elif key in begun:
            yield replace(begun.pop(key), end=second)
    yield from begun.values()
