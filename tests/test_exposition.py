"""Our writer says what prometheus_client's says, for anything that a client may call itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from pgleak.exposition import Column, Columns, Grid, Labels, Row, encode

if TYPE_CHECKING:
    from collections.abc import Iterable


class Families:
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> list[Metric]:
        return self._families


KINDS = ["gauge", "counter", "gaugehistogram", "histogram", "unknown", "info"]
SUFFIXES = {
    "gauge": [""],
    "counter": ["_total", "_created"],
    "gaugehistogram": ["_bucket", "_gcount", "_gsum"],
    "histogram": ["_bucket", "_count", "_sum", "_created"],
    "unknown": [""],
    "info": ["_info"],
}

label_values = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['"', "\\", "\n", '\\"\n']
)
column_values = label_values.filter(lambda value: "\0" not in value)
values = st.integers(-(10**6), 10**6) | st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def families(draw: st.DrawFn) -> list[Metric]:
    made = []
    for number in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(KINDS))
        family = Metric(f"metric_{number}", draw(label_values) or "help", kind)
        for _ in range(draw(st.integers(0, 4))):
            labels = draw(st.dictionaries(st.sampled_from(["a", "b", "le", "server"]), label_values, max_size=3))
            suffix = draw(st.sampled_from(SUFFIXES[kind]))
            family.add_sample(family.name + suffix, dict(sorted(labels.items())), draw(values))
        made.append(family)
    return made


def comparable(text: bytes) -> list[tuple[str, str]]:
    """Lines with the number apart, as a number: it may be written as 3, 3.0 or 1e+06."""
    pairs = (
        line.rsplit(" ", 1) if not line.startswith("#") else (line, "nan") for line in text.decode().split("\n") if line
    )
    return [(rest, repr(float(number))) for rest, number in pairs]


@given(families())
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_the_text_format_is_the_library_s(made: list[Metric]) -> None:
    assert comparable(encode(made, openmetrics=False)) == comparable(generate_latest(Families(made)))


@given(families())
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_openmetrics_is_the_library_s(made: list[Metric]) -> None:
    assert comparable(encode(made, openmetrics=True)) == comparable(generate_openmetrics(Families(made)))


@pytest.mark.parametrize("openmetrics", [True, False])
def test_the_library_s_own_families_pass_through(openmetrics: bool) -> None:
    made = list(ProcessCollector(registry=None).collect())
    library = generate_openmetrics if openmetrics else generate_latest
    assert len(encode(made, openmetrics=openmetrics).splitlines()) == len(library(Families(made)).splitlines())


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    kind = draw(st.sampled_from(["gauge", "gaugehistogram"]))
    columns = [
        Column.of(f"metric{suffix}", *draw(st.just(()) | st.tuples(st.just("le"), column_values)))
        for suffix in SUFFIXES[kind]
    ]
    rows = draw(
        st.lists(
            st.builds(
                lambda labels, numbers: Row(Labels(dict(sorted(labels.items()))), Columns.of(*columns), numbers),
                st.dictionaries(st.sampled_from(["a", "b", "c"]), label_values, min_size=1),  # before "le", as there
                st.lists(values, min_size=len(columns), max_size=len(columns)),
            ),
            max_size=3,
        )
    )
    return Grid("metric", "help", kind, rows)


@pytest.mark.parametrize("openmetrics", [True, False])
@given(grid=grids())
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_a_grid_says_what_the_library_says_of_its_samples(openmetrics: bool, grid: Grid) -> None:
    plain = Metric(grid.name, grid.documentation, grid.type)
    plain.samples = grid.samples
    assert len(plain.samples) == sum(len(row.columns.each) for row in grid.rows)
    library = generate_openmetrics if openmetrics else generate_latest
    assert comparable(encode([grid], openmetrics=openmetrics)) == comparable(library(Families([plain])))
