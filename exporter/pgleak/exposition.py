"""Metric families to text: the Prometheus text format 0.0.4 and OpenMetrics 1.0.

prometheus_client's own writers check and escape every name and label character by character, which took longer than
reading the server (``benchmarks/scrape.py`` shows both). This one relies on names that come from a catalogue, looks at
label values only, and once at those that samples have in common; a :class:`Grid` saves making the samples as objects.
Tests hold it against the library's writers. Samples carry no timestamps, exemplars or native histograms here.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_TEXT_TYPES = {"gaugehistogram": "histogram", "unknown": "untyped", "info": "gauge", "stateset": "gauge"}
_TEXT_SUFFIXES = {"counter": "_total", "info": "_info"}
_GAUGES_OF_THEIR_OWN = ("_created", "_gcount", "_gsum")  # in the text format, where histograms do not have them


_LABELS = "\0"


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


class Columns(NamedTuple):
    """The columns of a row, with the text of a whole row, which is made once for all rows of the same columns."""

    each: Sequence[Column]
    template: str  # a NUL where the labels go, %s where a value goes

    @classmethod
    def of(cls, *columns: Column) -> Columns:
        """Put columns together; their names and labels come from a catalogue, and hold no NUL."""
        parts = [(column.head.replace("%", "%%"), column.tail.replace("%", "%%")) for column in columns]
        return cls(columns, "\n".join([f"{head}{_LABELS}{tail}%s" for head, tail in parts]))


class Row(NamedTuple):
    """Samples of a :class:`Grid` that have labels in common: one value per column."""

    labels: Labels
    columns: Columns
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
            for column, value in zip(row.columns.each, row.values, strict=True)
        ]

    @samples.setter
    def samples(self, _: list[Sample]) -> None:
        """Take no notice: the library starts a family with an empty list."""

    def texts(self) -> Iterator[str]:
        """Yield the lines of each row."""
        for labels, columns, values in self.rows:
            numbers = tuple([value if type(value) is int else _number(value) for value in values])
            # The labels last: what others put into them is not looked at again.
            yield (columns.template % numbers).replace(_LABELS, labels.text)

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield (sample name, line) pairs."""
        for row, text in zip(self.rows, self.texts(), strict=True):
            yield from zip([column.name for column in row.columns.each], text.split("\n"), strict=True)


def encode(families: Iterable[Metric], *, openmetrics: bool) -> bytes:
    """Return all families in OpenMetrics, else in the Prometheus text format."""
    lines: list[str] = []
    for family in families:
        if openmetrics:
            _header(lines, family.name, family.type, _quoted(family.documentation), family.unit)
            lines += family.texts() if isinstance(family, Grid) else [line for _, line in _sample_lines(family)]
        else:
            _text_family(lines, family, _sample_lines(family))
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
        number = value if type(value) is int else _number(value)
        lines.append((name, f"{name}{{{text}}} {number}" if text else f"{name} {number}"))
    return lines


def _number(value: float) -> str:
    """Write a number; the library's way of writing makes no difference but for what is not finite, and takes longer."""
    return repr(value) if type(value) is float and isfinite(value) else floatToGoString(value)


def _pairs(labels: Mapping[str, str]) -> str:
    return ",".join([f'{name}="{_quoted(value)}"' for name, value in labels.items()])


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
