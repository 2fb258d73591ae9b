"""A whole dashboard as one HTML page, with Grafana's grid: 24 columns, 30 pixels a row, 8 between."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from asking.board import Board
from drawing import panels
from drawing.charts import Canvas
from drawing.panels import Answered

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asking.prometheus import Prometheus

WIDTH = 1600
_HEAD = 78
_ROW, _GAP = 30.0, 8.0
_STYLE = """
* { box-sizing: border-box }
body { margin: 0; background: #111217; color: #CCCCDC; font: 13px Inter, Roboto, "DejaVu Sans", sans-serif; position: relative }
header { padding: 12px 16px; font-size: 17px } header p { margin: 10px 0 0; font-size: 12px }
header span { background: #22252B; padding: 5px 8px; margin-right: 2px; color: #6E9FFF } header u { text-decoration: none;
  border: 1px solid #2F3136; padding: 4px 8px; margin-right: 12px } header a { float: right; color: #6E9FFF; margin-left: 14px; font-size: 13px }
.panel { position: absolute; background: #181B1F; border: 1px solid #25272D; border-radius: 2px; padding: 0 8px; overflow: hidden }
h2 { font-size: 13px; font-weight: 600; margin: 0; height: 30px; line-height: 30px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
.row { position: absolute; font-weight: 600; font-size: 15px; padding: 5px 8px }
.nothing, .stat { height: calc(100% - 38px); display: flex; align-items: center; justify-content: center; flex-direction: column;
  color: #8E8E9A; text-align: center } .stat { border-radius: 2px } .stat .name { font-size: 17px; font-weight: 600; white-space: nowrap }
.stat .value { font-size: 31px; font-weight: 600 } .stat .none { font-size: 20px }
.key { height: 17px; font-size: 11px; display: flex; align-items: center } .key i { width: 14px; height: 4px; margin-right: 6px }
.key span { flex: 1; white-space: nowrap; overflow: hidden } .key b { font-weight: 400; padding-right: 6px }
table { width: 100%; border-collapse: collapse; font-size: 12px } th { text-align: left; font-weight: 600; color: #6E9FFF; padding: 5px 6px }
td { border-top: 1px solid #25272D; padding: 6px; white-space: nowrap } td b { font-weight: 400 } .link { color: #6E9FFF }
.gauge { display: inline-block; width: 70px; height: 12px; background: #25272D; margin-right: 6px; vertical-align: middle } .gauge i { display: block; height: 100% }
"""


def page(board: Board, prometheus: Prometheus, siblings: Sequence[str], *, top: bool = False) -> tuple[str, int]:
    """Ask everything and return the page and its height in pixels.

    ``siblings`` are the titles it links to. With ``top``, only what stands above the first row that has a title.
    """
    json = board.json
    if top:
        first = next(index for index, panel in enumerate(json["panels"]) if panel["type"] == "row")
        json = {**json, "panels": json["panels"][:first]}
        board = Board(json, board.chosen, board.span)
    links = "".join(f"<a>{escape(title)}</a>" for title in siblings if title != json["title"])
    chosen = "".join(
        f"<span>{escape(one['label'])}</span><u>{escape(', '.join(board.chosen.get(one['name'], ())) or 'All')}</u>"
        for one in json["templating"]["list"]
        if one["type"] == "query" and not one["hide"]
    )
    hours = (board.span.end - board.span.start) / 3600
    shown = f"{hours:g} hours" if hours >= 1 else f"{hours * 60:.0f} minutes"
    head = f"<header>{links}{escape(json['title'])} &nbsp; <small>last {shown}</small><p>{chosen}</p></header>"
    marks = list(_marks(board, prometheus))
    body = "".join(_placed(board, panel, prometheus, marks) for panel in _laid_out(board, prometheus))
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in json["panels"])
    height = round(_HEAD + bottom * (_ROW + _GAP) + _GAP)
    return f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style>{head}{body}", height


def _marks(board: Board, prometheus: Prometheus) -> Iterator[tuple[float, str]]:
    for mark in board.json["annotations"]["list"]:
        step = max(60.0, board.span.scrape_interval)
        expr = board.expression(mark["target"]["expr"], step)
        seen = set()
        for series in prometheus.range(expr, board.span.start, board.span.end, step):
            for _, value in series.points:
                moment = value / 1000
                if board.span.start < moment <= board.span.end and moment not in seen:
                    seen.add(moment)
                    yield moment, mark["iconColor"]


def _laid_out(board: Board, prometheus: Prometheus) -> Iterator[tuple[Board, Mapping[str, Any]]]:
    """Yield each panel; one that repeats, once for each value of its variable, beside each other."""
    for panel in board.json["panels"]:
        name = panel.get("repeat")
        if not name:
            yield board, panel
            continue
        values = board.chosen.get(name) or board.values(prometheus, name)
        number = min(len(values), panel["maxPerRow"])
        for index, value in enumerate(values[:number]):
            place = panel["gridPos"]
            width = place["w"] // number
            one = {**panel, "title": panel["title"].replace(f"${name}", value)}
            one["gridPos"] = {**place, "w": width, "x": index * width}
            yield Board(board.json, {**board.chosen, name: (value,)}, board.span), one


def _placed(
    _board: Board, laid: tuple[Board, Mapping[str, Any]], prometheus: Prometheus, marks: Sequence[tuple[float, str]]
) -> str:
    board, panel = laid
    column = (WIDTH - _GAP) / 24
    place = panel["gridPos"]
    x, y = _GAP + place["x"] * column, _HEAD + place["y"] * (_ROW + _GAP)
    width, height = place["w"] * column - _GAP, place["h"] * (_ROW + _GAP) - _GAP
    where = f"left:{x:.0f}px;top:{y:.0f}px;width:{width:.0f}px;height:{height:.0f}px"
    if panel["type"] == "row":
        return f'<div class="row" style="{where}">{escape(panel["title"])}</div>'
    points = max(int(width / 4), 50)
    answers = {target["refId"]: board.ask(prometheus, target, points) for target in panel["targets"]}
    answered = Answered(panel, answers, Canvas(width, height, board.span), board.span.step(points), marks)
    return f'<div class="panel" style="{where}"><h2>{escape(panel["title"])}</h2>{panels.html(answered)}</div>'
