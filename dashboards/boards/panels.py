"""One function for each kind of panel, as Grafana's classic JSON has it.

Types of the options are Grafana's own, package ``@grafana/schema`` on npm; ``tests/ship/grafana.py`` checks them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from boards.colours import GOOD, LIMIT, NUMBER, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

JSON = dict[str, Any]
SOURCE: JSON = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel. ``legend`` is Grafana's template for the name of a series."""

    expr: str
    legend: str = ""
    shape: str = "time_series"  # or "table", "heatmap"
    instant: bool = False

    def target(self, number: int) -> JSON:
        return {
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": self.expr,
            "format": self.shape,
            "instant": self.instant,
            "range": not self.instant,
            "legendFormat": self.legend or "__auto",
            "refId": chr(ord("A") + number),
        }


@dataclass(frozen=True, slots=True)
class Say:
    """What a panel says: ``title`` is a question or a plain noun; ``nothing`` is shown where there is no data."""

    title: str
    description: str
    nothing: str
    unit: str = "none"
    decimals: int | None = None


Steps = tuple[tuple[float | None, str], ...]
"""Thresholds: from this value on this colour; the first has ``None``."""


ALL_WELL = -1
"""The value by which a tile knows that something was looked at and nothing found: no figure of a tile is negative."""


@dataclass(frozen=True, slots=True)
class Well:
    """What a tile says, in green, where its query gives nothing although ``known``, which was looked at, is there."""

    known: str
    text: str
    of: str  # stands where the name of a series would


def stat(
    say: Say,
    query: Query,
    steps: Steps,
    *,
    named: bool = False,
    links: Sequence[JSON] = (),
    well: Well | None = None,
) -> JSON:
    """One big number; with ``named``, below the name of the series that it belongs to.

    Without data it is grey: that nothing is known is never good news.
    """
    queries = [replace(query, instant=True)]
    if well:
        found = f"{ALL_WELL} * group({well.known}) unless on () ({query.expr})"
        queries.append(Query(found, well.of, instant=True))
    panel = _panel("stat", say, queries)
    panel["fieldConfig"]["defaults"] |= {
        "color": {"mode": "thresholds"},
        "thresholds": _thresholds(steps),
        "links": list(links),
    }
    if len(steps) > 1:
        panel["fieldConfig"]["defaults"]["mappings"] = [_no_data(say.nothing, UNKNOWN)]
    if well:
        green = {"text": well.text, "color": GOOD, "index": 1}
        panel["fieldConfig"]["defaults"]["mappings"] += [{"type": "value", "options": {str(ALL_WELL): green}}]
    panel["options"] = {
        "colorMode": "background_solid" if len(steps) > 1 else "none",
        "graphMode": "none",
        "justifyMode": "center",
        "orientation": "horizontal",
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "textMode": "value_and_name" if named else "value",
        "wideLayout": False,
    }
    return panel


def graph(
    say: Say,
    *queries: Query,
    colours: Mapping[str, str] | None = None,
    dashed: Sequence[str] = (),
    stacked: bool = False,
    links: Sequence[JSON] = (),
    steps: bool = False,
    bars: bool = False,
) -> JSON:
    """Lines over time, or areas on top of each other.

    ``colours`` are by the series' name, or by a regular expression between slashes; ``dashed`` names series (regular expressions) that are lines to compare with and
    never part of a stack. ``steps`` for what jumps. ``bars``, on top of each other, for what happens now and then: of a
    single moment a line shows nothing.
    """
    stacked = stacked or bars
    panel = _panel("timeseries", say, queries)
    panel["fieldConfig"]["defaults"] |= {
        "color": {"mode": "palette-classic-by-name"},
        "min": 0,
        "links": list(links),
        "thresholds": _thresholds(((None, "text"),)),
        "custom": {
            "drawStyle": "bars" if bars else "line",
            "lineInterpolation": "stepAfter" if steps else "linear",
            "lineWidth": 1 if stacked else 2,
            "fillOpacity": 60 if stacked else 0,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
            "axisSoftMax": 1,
        },
    }
    panel["fieldConfig"]["overrides"] += [
        _override("byRegexp" if name.startswith("/") else "byName", name, color={"mode": "fixed", "fixedColor": colour})
        for name, colour in (colours or {}).items()
    ]
    for pattern in dashed:
        comparing = {
            "custom.lineStyle": {"fill": "dash", "dash": [8, 6]},
            "custom.fillOpacity": 0,
            "custom.lineWidth": 2,
            "custom.stacking": {"mode": "none", "group": "B"},
        }
        panel["fieldConfig"]["overrides"].append(_override("byRegexp", pattern, **comparing))
    panel["options"] = {
        "legend": {"calcs": ["lastNotNull"], "displayMode": "table", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel


def limit(panel: JSON) -> JSON:
    """Draw the series whose name ends so as a limit: dashed and red."""
    dashed = _override("byRegexp", "/limit$/", color={"mode": "fixed", "fixedColor": LIMIT})
    dashed["properties"] += [
        {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}},
        {"id": "custom.fillOpacity", "value": 0},
        {"id": "custom.lineWidth", "value": 2},
        {"id": "custom.stacking", "value": {"mode": "none", "group": "limit"}},
    ]
    panel["fieldConfig"]["overrides"].append(dashed)
    return panel


def ages(say: Say, query: Query) -> JSON:
    """A heat map of a histogram of what is now: columns are moments, rows are ages, colour is how many."""
    panel = _panel("heatmap", say, [replace(query, shape="heatmap", legend="{{le}}")])
    panel["fieldConfig"]["defaults"]["custom"] = {"scaleDistribution": {"type": "linear"}}
    panel["options"] = {
        "calculate": False,
        "cellGap": 1,
        "cellValues": {"unit": "none", "decimals": 0},
        "color": {
            "mode": "opacity",  # with a scheme, Grafana does not take the exponent, and a few beside many are not seen
            "fill": NUMBER,
            "scale": "exponential",
            "exponent": 0.4,
            "reverse": False,
            "scheme": "",
            "steps": 64,
        },
        "exemplars": {"color": UNKNOWN},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto", "value": "connections"},
        "showValue": "never",
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"},
    }
    return panel


def states(say: Say, query: Query, values: Mapping[str, tuple[str, str]]) -> JSON:
    """A band for each series, coloured by its value; ``values`` maps a value to its text and colour."""
    panel = _panel("state-timeline", say, [query])
    options = {
        value: {"text": text, "color": colour, "index": index}
        for index, (value, (text, colour)) in enumerate(values.items())
    }
    panel["fieldConfig"]["defaults"] |= {
        "color": {"mode": "thresholds"},
        "thresholds": _thresholds(((None, "text"),)),
        "mappings": [{"type": "value", "options": options}],
        "custom": {"fillOpacity": 80, "lineWidth": 0},
    }
    panel["options"] = {
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "mergeValues": True,
        "rowHeight": 0.8,
        "showValue": "never",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return panel


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. ``source`` is a label, or the reference of a query (``A``) for its value.

    ``nothing`` is what a row without a value has there: else Grafana writes the table's own text into each such cell.
    """

    source: str
    title: str
    unit: str = "none"
    decimals: int | None = None
    steps: Steps = ()
    gauge: bool = False
    links: tuple[JSON, ...] = ()
    nothing: str = ""

    @property
    def field(self) -> str:
        return f"Value #{self.source}" if len(self.source) == 1 else self.source

    def override(self) -> JSON:
        properties: JSON = {"noValue": self.nothing}
        if self.unit != "none":
            properties["unit"] = self.unit
        if self.decimals is not None:
            properties["decimals"] = self.decimals
        if self.gauge:
            properties |= {"min": 0, "max": 1, "custom.cellOptions": {"type": "gauge", "mode": "basic"}}
        elif self.steps:
            properties["custom.cellOptions"] = {"type": "color-text"}
        if self.steps:
            properties["thresholds"] = _thresholds(self.steps)
            properties["color"] = {"mode": "thresholds"}
            properties["mappings"] = [_no_data(self.nothing, "text")]
        if self.links:
            properties["links"] = list(self.links)
        return _override("byName", self.title, **properties)


def table(say: Say, queries: Sequence[Query], columns: Sequence[Column], sort: str, *, descending: bool = True) -> JSON:
    """Rows of what the queries' labels have in common, with the labels and the queries' values that have a column."""
    panel = _panel("table", say, [replace(query, shape="table", instant=True) for query in queries])
    panel["fieldConfig"]["defaults"] |= {
        "color": {"mode": "thresholds"},
        "thresholds": _thresholds(((None, "text"),)),
        "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False},
    }
    panel["fieldConfig"]["overrides"] = [column.override() for column in columns]
    values = [f"Value #{target['refId']}" for target in panel["targets"]]
    shown = {column.field for column in columns}
    panel["transformations"] = [
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {"Time": True, **{value: True for value in values if value not in shown}},
                "indexByName": {column.field: index for index, column in enumerate(columns)},
                "renameByName": {column.field: column.title for column in columns},
            },
        },
    ]
    panel["options"] = {
        "cellHeight": "sm",
        "frameIndex": 0,
        "showHeader": True,
        "sortBy": [{"desc": descending, "displayName": sort}],
    }
    return panel


def _panel(kind: str, say: Say, queries: Sequence[Query]) -> JSON:
    defaults: JSON = {"unit": say.unit, "noValue": say.nothing}
    if say.decimals is not None:
        defaults["decimals"] = say.decimals
    return {
        "type": kind,
        "title": say.title,
        "description": say.description,
        "datasource": SOURCE,
        "targets": [query.target(number) for number, query in enumerate(queries)],
        "fieldConfig": {"defaults": defaults, "overrides": []},
    }


def _thresholds(steps: Steps) -> JSON:
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in steps]}


def _no_data(text: str, colour: str) -> JSON:
    """Say so in this colour. Grafana would take that of the lowest value, which says that all is well, or nothing is."""
    return {"type": "special", "options": {"match": "null", "result": {"text": text, "color": colour, "index": 0}}}


def _override(matcher: str, options: str, **properties: Any) -> JSON:
    return {
        "matcher": {"id": matcher, "options": options},
        "properties": [{"id": name, "value": value} for name, value in properties.items()],
    }
