"""A dashboard with its variables chosen: what Grafana would ask Prometheus for each of its panels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asking.prometheus import Prometheus, Series

_VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")
_LABEL_VALUES = re.compile(r"label_values\((.*), (\w+)\)")
_SPECIAL = re.compile(r"[\\^$*+?.()|\[\]{}]")


@dataclass(frozen=True, slots=True)
class Span:
    """The time that is shown, and how often Prometheus scrapes; seconds."""

    start: float
    end: float
    scrape_interval: float

    def step(self, points: int) -> float:
        return max((self.end - self.start) / points, self.scrape_interval)


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard's JSON, and for each variable the values chosen; no value stands for All."""

    json: Mapping[str, Any]
    chosen: Mapping[str, tuple[str, ...]]
    span: Span

    def panels(self) -> list[dict[str, Any]]:
        """Return the panels that ask something."""
        return [panel for panel in self.json["panels"] if panel["type"] != "row"]

    def expression(self, text: str, step: float) -> str:
        """Fill in the variables. Raises ``KeyError`` for one that the dashboard does not have."""
        span, every = self.span, self.span.scrape_interval
        built_in = {
            "__range": f"{span.end - span.start:.0f}s",
            "__interval": f"{step:.0f}s",
            "__rate_interval": f"{max(step + every, 4 * every):.0f}s",
        }
        declared = {one["name"]: one for one in self.json["templating"]["list"]}

        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name in built_in:
                return built_in[name]
            values = self.chosen.get(name, ())
            if not values:
                return str(declared[name]["allValue"])
            if not declared[name]["multi"]:
                return values[0].replace("\\", "\\\\").replace('"', '\\"')
            escaped = [_SPECIAL.sub(r"\\\\\g<0>", one) for one in values]
            return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"

        return _VARIABLE.sub(value, text)

    def values(self, prometheus: Prometheus, variable: str) -> list[str]:
        """Return what a variable offers, by its own query."""
        declared = next(one for one in self.json["templating"]["list"] if one["name"] == variable)
        found = _LABEL_VALUES.fullmatch(self.expression(declared["query"]["query"], 60))
        if not found:
            raise ValueError(f"variable {variable} asks in a way that is not known here: {declared['query']['query']}")
        return prometheus.label_values(found[1], found[2], self.span.start, self.span.end)

    def ask(self, prometheus: Prometheus, target: Mapping[str, Any], points: int) -> list[Series]:
        """Return what one query of a panel gives."""
        step = self.span.step(points)
        expr = self.expression(target["expr"], step)
        if target["instant"]:
            return prometheus.instant(expr, self.span.end)
        start = self.span.start - self.span.start % step
        return prometheus.range(expr, start, self.span.end, step)
