"""Each kind of panel as HTML."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from drawing import charts, fields, rows, units
from drawing.charts import Canvas, Line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asking.prometheus import Series

_TITLE = 30.0
_LEGEND_ROW = 17.0
_DARK_TEXT = "#111217"


@dataclass(frozen=True, slots=True)
class Answered:
    """A panel with what its queries gave (by reference), its size in pixels, and the annotations of its dashboard."""

    json: Mapping[str, Any]
    answers: Mapping[str, Sequence[Series]]
    canvas: Canvas
    step: float
    marks: Sequence[tuple[float, str]]

    def named(self) -> list[tuple[str, Series]]:
        templates = {target["refId"]: target["legendFormat"] for target in self.json["targets"]}
        return [
            (fields.legend(templates[reference], series.labels), series)
            for reference, answer in self.answers.items()
            for series in answer
        ]

    @property
    def unit(self) -> str:
        return str(self.json["fieldConfig"]["defaults"]["unit"])


def html(panel: Answered) -> str:
    """Return the inside of a panel, without its title."""
    if not any(panel.answers.values()) and panel.json["type"] != "stat":
        nothing = escape(panel.json["fieldConfig"]["defaults"]["noValue"])
        return f'<div class="nothing">{nothing}</div>'
    return _KINDS[panel.json["type"]](panel)


def _stat(panel: Answered) -> str:
    named = panel.named()
    field = fields.of(panel.json, "")
    solid = panel.json["options"]["colorMode"] == "background_solid"
    if not named:
        colour = next((one["options"]["result"]["color"] for one in field.get("mappings", ())), fields.TEXT)
        style = f"background:{colour};color:{_DARK_TEXT}" if solid else f"color:{colour}"
        return f'<div class="stat" style="{style}"><div class="none">{escape(field["noValue"])}</div></div>'
    name, series = named[0]
    colour = fields.colour(field, name, series.last)
    style = f"background:{colour};color:{_DARK_TEXT}" if solid else f"color:{colour}"
    value = escape(fields.mapped(field, series.last) or units.text(series.last, panel.unit, field.get("decimals")))
    size = min(31, int(panel.canvas.width * 1.5 / len(value)))
    shown = f'<div class="name">{escape(name)}</div>' if panel.json["options"]["textMode"] == "value_and_name" else ""
    return f'<div class="stat" style="{style}">{shown}<div class="value" style="font-size:{size}px">{value}</div></div>'


def _graph(panel: Answered) -> str:
    series = [line for name, one in panel.named() if (line := _line(panel, name, one)).points]
    room = panel.canvas.height - _TITLE
    most = int(room * 0.36 / _LEGEND_ROW)
    legend = series[:most] if len(series) > most else series
    canvas = Canvas(panel.canvas.width - 16, room - len(legend) * _LEGEND_ROW - 6, panel.canvas.span)
    unit = panel.unit
    decimals = panel.json["fieldConfig"]["defaults"].get("decimals")
    table = "".join(
        f'<div class="key"><i style="background:{line.colour}"></i><span>{escape(line.name)}</span>'
        f"<b>{escape(units.text(line.points[-1][1], unit, decimals))}</b></div>"
        for line in legend
    )
    return charts.lines(series, canvas, unit, panel.marks) + f'<div class="legend">{table}</div>'


def _line(panel: Answered, name: str, series: Series) -> Line:
    field = fields.of(panel.json, name)
    stacking = field["custom.stacking"]
    return Line(
        name,
        tuple((moment, value) for moment, value in series.points if math.isfinite(value)),
        fields.colour(field, name),
        field["custom.lineWidth"],
        field["custom.fillOpacity"] / 100,
        dashed="custom.lineStyle" in field,
        steps=field["custom.lineInterpolation"] == "stepAfter",
        bars=field["custom.drawStyle"] == "bars",
        stack=stacking["group"] if stacking["mode"] == "normal" else "",
    )


def _heat(panel: Answered) -> str:
    cumulative = sorted(((float(name), dict(one.points)) for name, one in panel.named()), key=lambda row: row[0])
    below: dict[float, float] = {}
    cells = []
    for bound, numbers in cumulative:
        label = "+Inf" if math.isinf(bound) else units.text(bound, "s", 0)
        cells.append((label, {moment: number - below.get(moment, 0.0) for moment, number in numbers.items()}))
        below = numbers
    canvas = Canvas(panel.canvas.width - 16, panel.canvas.height - _TITLE - 6, panel.canvas.span)
    colour = panel.json["options"]["color"]
    return charts.heat(cells, canvas, panel.step, charts.Heat(colour["fill"], colour["exponent"]), panel.marks)


def _states(panel: Answered) -> str:
    values = panel.json["fieldConfig"]["defaults"]["mappings"][0]["options"]
    bands = [
        (name, [(moment, values[f"{value:.0f}"]["color"]) for moment, value in series.points])
        for name, series in panel.named()
    ]
    canvas = Canvas(panel.canvas.width - 16, panel.canvas.height - _TITLE - _LEGEND_ROW - 8, panel.canvas.span)
    keys = "".join(
        f'<div class="key"><i style="background:{one["color"]}"></i><span>{escape(one["text"])}</span></div>'
        for one in values.values()
    )
    return charts.bands(bands, canvas, panel.step) + f'<div class="legend">{keys}</div>'


def _table(panel: Answered) -> str:
    titles, cells = rows.organised(panel.json, rows.merged(panel.answers))
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(
        "<tr>" + "".join(_cell(panel, title, value) for title, value in zip(titles, row, strict=True)) + "</tr>"
        for row in cells
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(panel: Answered, title: str, value: rows.Cell | None) -> str:
    field = fields.of(panel.json, title)
    if value is None:
        return f"<td>{escape(field['noValue'])}</td>"
    if isinstance(value, str):
        linked = ' class="link"' if field.get("links") else ""
        return f"<td{linked}>{escape(value)}</td>"
    shown = escape(units.text(value, field.get("unit", "none"), field.get("decimals")))
    colour = fields.colour(field, title, value)
    if field["custom.cellOptions"]["type"] == "gauge":
        width = min(max(value / field["max"], 0), 1) * 100
        bar = f'<i style="width:{width:.0f}%;background:{colour}"></i>'
        return f'<td><div class="gauge">{bar}</div><b style="color:{colour}">{shown}</b></td>'
    return f'<td class="number" style="color:{colour}">{shown}</td>'


_KINDS: dict[str, Callable[[Answered], str]] = {
    "stat": _stat,
    "timeseries": _graph,
    "heatmap": _heat,
    "state-timeline": _states,
    "table": _table,
}
