"""Metric families to text: the Prometheus text format 0.0.4 and OpenMetrics 1.0.

prometheus_client's own writers check and escape every name and label character by character, which took longer than
reading the server (``benchmarks/scrape.py`` shows both). This one relies on names that come from a catalogue, looks at
label values only, and at each value once; a test holds it against the library's writers. Samples carry no timestamps,
exemplars or native histograms here.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

_TEXT_TYPES = {"gaugehistogram": "histogram", "unknown": "untyped", "info": "gauge", "stateset": "gauge"}
_TEXT_SUFFIXES = {"counter": "_total", "info": "_info"}
_GAUGES_OF_THEIR_OWN = ("_created", "_gcount", "_gsum")  # in the text format, where histograms do not have them


def encode(families: Iterable[Metric], *, openmetrics: bool) -> bytes:
    """Return all families in OpenMetrics, else in the Prometheus text format."""
    lines: list[str] = []
    escaped: dict[str, str] = {}
    for family in families:
        samples = _sample_lines(family, escaped)
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


def _sample_lines(family: Metric, escaped: dict[str, str]) -> list[tuple[str, str]]:
    """Return (sample name, line) pairs; ``escaped`` remembers label values, of which a scrape has few distinct ones."""
    lines = []
    for name, labels, value, *_ in family.samples:
        pairs = []
        for label, text in labels.items():
            known = escaped.get(text)
            if known is None:
                known = escaped[text] = _quoted(text)
            pairs.append(f'{label}="{known}"')
        number = value if type(value) is int else floatToGoString(value)
        lines.append((name, f"{name}{{{','.join(pairs)}}} {number}" if pairs else f"{name} {number}"))
    return lines


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
