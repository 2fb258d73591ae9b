"""The rules as data, and the promtool that reads them."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
RULES = ROOT / "dashboards" / "rules.yml"
ADAPTER = ROOT / "dashboards" / "rules-postgres_exporter.yml"
RUNBOOK = ROOT / "dashboards" / "runbook.md"
TESTS = ROOT / "tests" / "rules"

_LITERALS = re.compile(r'"(?:[^"\\]|\\.)*"')
_NAMES = re.compile(r"\b((?:pgleak|sqlalchemy_pool)_\w+)\b")
_RECORDED = re.compile(r"\b[a-z_]+:\w+:\w+\b")


@dataclass(frozen=True)
class Rule:
    """One entry of a rule file, of either kind; what it has not is empty."""

    group: str
    name: str
    expr: str
    is_alert: bool
    pause: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def metrics(self) -> set[str]:
        """Scraped metrics that the expression reads."""
        return set(_NAMES.findall(_RECORDED.sub("", _LITERALS.sub("", self.expr))))

    @property
    def recorded(self) -> set[str]:
        """Recorded series that the expression reads."""
        return set(_RECORDED.findall(_LITERALS.sub("", self.expr)))


@functools.cache
def rules(path: Path) -> list[Rule]:
    groups = yaml.safe_load(path.read_text())["groups"]
    return [_rule(group["name"], entry) for group in groups for entry in group["rules"]]


def _rule(group: str, entry: dict[str, Any]) -> Rule:
    known = {"alert", "record", "expr", "for", "keep_firing_for", "labels", "annotations"}
    assert set(entry) <= known, entry
    return Rule(
        group,
        entry.get("alert") or entry["record"],
        entry["expr"],
        "alert" in entry,
        entry.get("for", ""),
        entry.get("labels", {}),
        entry.get("annotations", {}),
    )


def alerts() -> list[Rule]:
    return [rule for rule in rules(RULES) if rule.is_alert]


def commands(language: str) -> list[str]:
    """What the runbook says to type in this language, each block of it once."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return sorted(set(found))


def questions() -> list[str]:
    """Return each PromQL of the runbook."""
    return sorted({query.strip() for block in commands("promql") for query in block.split("\n\n")})


def promtool(*arguments: str | Path) -> str:
    """Run it to a good end and return its output. PROMTOOL names another one than Debian's."""
    program = os.environ.get("PROMTOOL") or shutil.which("promtool")
    assert program, "promtool is missing: apt install prometheus"
    environment = {**os.environ, "GOGC": "400"}  # collects memory less often, which saves time
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
