"""A Prometheus for the demo, where one is installed: the rules of this checkout, with minutes for hours."""

from __future__ import annotations

import http.client
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pgleak.demo.child import Child
from pgleak.demo.embedded import LOOPBACK, free_port

if TYPE_CHECKING:
    from collections.abc import Callable

SPEED = 60  # times faster than real rules: a minute is a second
RULES = Path(__file__).parents[3] / "dashboards" / "rules.yml"  # only in a checkout

_INSTALL = "not installed; with it (apt install prometheus) this shows alerts"
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
_DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
_IN_EXPRESSION = re.compile(rf"(?<=\[){_DURATION}(?:(?=\])|:(?:{_DURATION})?(?=\]))|(?<=\boffset ){_DURATION}")
_TIMES = ("interval", "for", "keep_firing_for")


def faster(rules: dict[str, Any], speed: int = SPEED) -> dict[str, Any]:
    """Divide every duration of a rule file: ranges, offsets, pauses, intervals. Numbers in an expression stay."""

    def divided(entry: dict[str, Any]) -> dict[str, Any]:
        times = {key: _divided(entry[key], speed) for key in _TIMES if key in entry}
        return {**entry, **times}

    groups = []
    for group in rules["groups"]:
        entries = [
            {**divided(entry), "expr": _IN_EXPRESSION.sub(lambda found: _divided(found[0], speed), entry["expr"])}
            for entry in group["rules"]
        ]
        groups.append({**divided({"interval": "1m", **group}), "rules": entries})
    return {"groups": groups}


def _divided(text: str, speed: int) -> str:
    def shorter(found: re.Match[str]) -> str:
        parts = re.findall(r"(\d+)(ms|[smhdwy])", found[0])
        milliseconds = round(sum(int(number) * _UNITS[unit] for number, unit in parts) / speed)
        return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"

    return re.sub(_DURATION, shorter, text)


class Prometheus:
    """The program of this name on the PATH, started when the exporter listens. One that cannot run is no obstacle."""

    def __init__(self, folder: Path, exporter_port: Callable[[], int]) -> None:
        self._folder = folder
        self._exporter_port = exporter_port
        self._program = shutil.which("prometheus") if RULES.exists() else None
        self._child: Child | None = None
        self.port = 0  # until it runs

    def is_settled(self) -> bool:
        """Say whether it answers by now, or never will."""
        if self._program is None:
            return True
        if self._child is None:
            self.port = free_port()
            self._child = self._start(self._program)
        return self._child.has_ended or self._answers()

    def introduction(self) -> list[str]:
        """Tell where it is, or why it is not."""
        if self._child is None:
            return [f"prometheus  {_INSTALL}"]
        if self._child.has_ended:
            return ["prometheus  did not start, perhaps it is older than 2.42"]
        address = f"http://{LOOPBACK}:{self.port}"
        return [
            f"graph       {address}/graph?g0.tab=0&g0.expr=pgleak_connections",
            f"alerts      {address}/alerts: rules.yml, scaled {SPEED} times faster:",
            "            5 s are 5 min of the real rules, 1 min is 1 h",
        ]

    def end(self) -> None:
        if self._child is not None:
            self._child.end()

    def _start(self, program: str) -> Child:
        rules = self._folder / "rules.yml"
        rules.write_text(json.dumps(faster(yaml.safe_load(RULES.read_text())), indent=2))  # JSON is YAML
        target = {"targets": [f"{LOOPBACK}:{self._exporter_port()}"]}
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "pgleak", "static_configs": [target]}],
        }
        path = self._folder / "prometheus.yml"
        path.write_text(json.dumps(config, indent=2))
        options = {
            "config.file": path,
            "storage.tsdb.path": self._folder / "prometheus",
            "web.listen-address": f"{LOOPBACK}:{self.port}",
            "query.lookback-delta": "10s",  # of 5 min; not shorter, for a machine that is busy
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        return Child("prometheus", self._folder, ["pgleak.demo.program", program, *arguments])

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=2)
        try:
            connection.request("GET", "/-/ready")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
