"""Metric families to text: the Prometheus text format 0.0.4 and OpenMetrics 1.0.

prometheus_client's own writers check and escape every name and label character by character, which took longer than
reading the server (``benchmarks/scrape.py`` shows both). This one relies on names that come from a catalogue, looks at
label values only, and once at those that samples have in common; a :class:`Grid` saves making the samples as objects.
Tests hold it against the library's writers. Samples carry no timestamps, exemplars or native histograms here.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_TEXT_TYPES = {"gaugehistogram": "histogram", "unknown": "untyped", "info": "gauge", "stateset": "gauge"}
_TEXT_SUFFIXES = {"counter": "_total", "info": "_info"}
_GAUGES_OF_THEIR_OWN = ("_created", "_gcount", "_gsum")  # in the text format, where histograms do not have them


class Labels(dict[str, str]):
    """At least one label, with the text of all, which is made once for all samples that have these in common."""

    __slots__ = ("text",)

    def __init__(self, labels: Mapping[str, str]) -> None:
        super().__init__(labels)
        self.text = _pairs(labels)


class Column(NamedTuple):
    """What one sample of each row of a :class:`Grid` has of its own: its name and perhaps one more label."""

    name: str
    head: str  # the text up to the row's labels, and what follows them
    tail: str
    label: tuple[str, str] | None = None

    @classmethod
    def of(cls, name: str, *label: str) -> Column:
        """Return the column of samples of this name; ``label`` is empty, or a label's name and value."""
        if not label:
            return cls(name, f"{name}{{", "} ")
        key, value = label
        return cls(name, f"{name}{{", f',{key}="{_quoted(value)}"}} ', (key, value))


class Row(NamedTuple):
    """Samples of a :class:`Grid` that have labels in common: one value per column."""

    labels: Labels
    columns: Sequence[Column]
    values: Sequence[float]


class Grid(Metric):
    """A family whose samples come in rows. Its samples exist as objects only when somebody asks for them."""

    def __init__(self, name: str, documentation: str, kind: str, rows: Sequence[Row]) -> None:
        self.rows = rows
        super().__init__(name, documentation, kind)

    @property
    def samples(self) -> list[Sample]:
        return [
            Sample(column.name, {**row.labels, **dict([column.label] if column.label else ())}, value)
            for row in self.rows
            for column, value in zip(row.columns, row.values, strict=True)
        ]

    @samples.setter
    def samples(self, _: list[Sample]) -> None:
        """Take no notice: the library starts a family with an empty list."""

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield (sample name, line) pairs."""
        for labels, columns, values in self.rows:
            text = labels.text
            for (name, head, tail, _), value in zip(columns, values, strict=True):
                yield name, f"{head}{text}{tail}{value if type(value) is int else floatToGoString(value)}"


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
    if isinstance(family, Grid):
        return list(family.lines())
    lines = []
    for name, labels, value, *_ in family.samples:
        text = _pairs(labels)
        number = value if type(value) is int else floatToGoString(value)
        lines.append((name, f"{name}{{{text}}} {number}" if text else f"{name} {number}"))
    return lines


def _pairs(labels: Mapping[str, str]) -> str:
    return ",".join([f'{name}="{_quoted(value)}"' for name, value in labels.items()])


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
