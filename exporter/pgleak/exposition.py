"""Metric families to text: the Prometheus text format 0.0.4 and OpenMetrics 1.0.

prometheus_client's own writers check and escape every name and label character by character, which took longer than
reading the server (``benchmarks/scrape.py`` shows both). This one relies on names that come from a catalogue, looks at
label values only, and once at those that samples have in common; a test holds it against the library's writers. Samples carry no timestamps,
exemplars or native histograms here.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client import Metric

_TEXT_TYPES = {"gaugehistogram": "histogram", "unknown": "untyped", "info": "gauge", "stateset": "gauge"}
_TEXT_SUFFIXES = {"counter": "_total", "info": "_info"}
_GAUGES_OF_THEIR_OWN = ("_created", "_gcount", "_gsum")  # in the text format, where histograms do not have them


class Labels(dict[str, str]):
    """Labels of a sample with their text, which is made once for all samples that have these in common."""

    __slots__ = ("text",)

    def __init__(self, labels: Mapping[str, str], text: str | None = None) -> None:
        super().__init__(labels)
        self.text = _pairs(labels) if text is None else text

    def plus(self, name: str, value: str) -> Labels:
        """Return these labels and one more."""
        more = Labels(self, f'{self.text},{name}="{_quoted(value)}"')
        more[name] = value
        return more


def encode(families: Iterable[Metric], *, openmetrics: bool) -> bytes:
    """Return all families in OpenMetrics, else in the Prometheus text format."""
    lines: list[str] = []
    for family in families:
        samples = _sample_lines(family)
        if openmetrics:
            _header(lines, family.name, family.type, _quoted(family.documentation), family.unit)
            lines += [line for _, line in samples]
        else:
            _text_family(lines, family, samples)
    if openmetrics:
        lines.append("# EOF")
    return ("\n".join(lines) + "\n").encode("utf-8", "replace") if lines else b""


def _text_family(lines: list[str], family: Metric, samples: list[tuple[str, str]]) -> None:
    documentation = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
    name = family.name + _TEXT_SUFFIXES.get(family.type, "")
    _header(lines, name, _TEXT_TYPES.get(family.type, family.type), documentation)
    apart = {family.name + suffix for suffix in _GAUGES_OF_THEIR_OWN}
    lines += [line for name, line in samples if name not in apart]
    for extra in sorted({name for name, _ in samples if name in apart}):
        _header(lines, extra, "gauge", documentation)
        lines += [line for name, line in samples if name == extra]


def _header(lines: list[str], name: str, kind: str, documentation: str, unit: str = "") -> None:
    lines.append(f"# HELP {name} {documentation}")
    lines.append(f"# TYPE {name} {kind}")
    if unit:
        lines.append(f"# UNIT {name} {unit}")


def _sample_lines(family: Metric) -> list[tuple[str, str]]:
    """Return (sample name, line) pairs."""
    lines = []
    for name, labels, value, *_ in family.samples:
        text = labels.text if type(labels) is Labels else _pairs(labels)
        number = value if type(value) is int else floatToGoString(value)
        lines.append((name, f"{name}{{{text}}} {number}" if text else f"{name} {number}"))
    return lines


def _pairs(labels: Mapping[str, str]) -> str:
    return ",".join([f'{name}="{_quoted(value)}"' for name, value in labels.items()])


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
