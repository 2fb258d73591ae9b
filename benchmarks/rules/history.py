"""The history that a Prometheus gets before it is measured: as much of everything as the rules look back at."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.utils import floatToGoString

from pgleak.holders.metrics import JOIN
from pgleak.metrics import AGE_BUCKETS, SERVER_HALF
from pgleak.pool.merged import SHARED_FOLDER
from pgleak.pool.metrics import IN_PROCESS_HALF
from pgleak.postgres.evidence import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PER_SERVER = 50
MINUTE, DAY = 60, 86_400
KEPT = 14 * DAY
BLOCK = 54 * 3600  # a length that Prometheus' own compaction makes

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
    "evidence": ("server", "usename", "application_name", "evidence"),
    "server": ("server",),
    "role": ("server", "usename"),
    "database": ("server", "datname"),
}
RECORDED_KINDS = KINDS[1:]  # of evidence; what is stuck in a transaction has a rule of its own
_VALUES = {
    "state": ("active", "idle", "idle in transaction"),
    "evidence": KINDS,
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
        """Yield each series with its value; `target` is what a scrape adds to the labels."""
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
        looks_leaked = any(word in self.name for word in ("suspect", "stuck", "overdue"))
        if number % 100 == 0 and looks_leaked:
            return 12
        if self.is_scraped:
            return _HEALTHY.get(self.name, 0)
        return 0 if looks_leaked else 9


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
        if "evidence" in own:
            own["evidence"] = RECORDED_KINDS
        if name.startswith("application:pgleak_idle_connections"):
            own["over"] = _VALUES["over"]  # handed on by what they are recorded from
        level = "application" if "application_name" in own else "server"
        labels = [{**own, **{key: (str(value),) for key, value in rule.get("labels", {}).items()}} for rule, _ in rules]
        step = max(step for _, step in rules)
        # What is slow enough to be kept for long is kept for all of the time.
        far = KEPT if reach.get(name, 0) > DAY else reach.get(name, 0)
        found.append(Family(name, tuple(labels), level, step, far, is_scraped=False))
    return found


def builder() -> Path:
    """Build the program that writes a history."""
    assert shutil.which("go"), "go is missing: Go 1.26 or newer builds what writes the history (https://go.dev/dl/)"
    program = ROOT / ".tools" / "rules-history"
    source = ROOT / "benchmarks" / "detection" / "engine"
    subprocess.run(["go", "build", "-o", program, "./backfill"], cwd=source, check=True)
    return program


def backfill(data: Path, everything: list[Family], applications: int, now: int, target: str) -> int:
    """Write the history; return the number of samples. Numbers of connections go up and down a little, as real ones do."""
    text = data.parent / "history.txt"
    with text.open("w") as output:
        for family in everything:
            first = (now - family.reach) // family.step * family.step
            for series, value in family.series(applications, target if family.is_scraped else ""):
                swing = 2 if value in {3, 9} else 0
                output.write(f"{series}\t{family.step}\t{first}\t{value}\t{swing}\n")
    span = [f"-from={(now - KEPT) // BLOCK * BLOCK}", f"-until={now}", f"-block={BLOCK}"]
    with text.open() as lines:
        done = subprocess.run([builder(), *span, data], stdin=lines, stdout=subprocess.PIPE, text=True, check=True)
    text.unlink()
    return int(done.stdout)
