"""What all dashboards have in common: variables, links, annotations, and the grid of 24 columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from boards import colours
from boards.panels import JSON, SOURCE
from pgleak import metrics
from pgleak.pool import metrics as pool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SCHEMA_VERSION = 42
COLUMNS = 24
TAG = "pgleak"

CONNECTIONS, APPLICATION, POOL = "pgleak-connections", "pgleak-application", "pgleak-pool"
"""The dashboards' uids: part of every link to them, so they never change."""

TITLES = {CONNECTIONS: "pgleak / Connections", APPLICATION: "pgleak / Application", POOL: "pgleak / Pool"}


@dataclass(frozen=True, slots=True)
class Shelf:
    """Panels beside each other, with their widths in columns; a title makes it the first of a row of its own."""

    height: int
    panels: Sequence[tuple[JSON, int]]
    row: str = ""


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard."""

    uid: str
    description: str
    variables: Sequence[JSON]
    shelves: Sequence[Shelf]
    annotations: Sequence[JSON] = ()
    hours: int = 24

    def json(self) -> JSON:
        return {
            "id": None,
            "uid": self.uid,
            "title": TITLES[self.uid],
            "description": self.description,
            "tags": [TAG, "postgresql"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,  # one crosshair for all panels
            "liveNow": False,
            "refresh": "1m",
            "time": {"from": f"now-{self.hours}h", "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "templating": {"list": [_datasource(), *self.variables, *_handed_on(self.variables)]},
            "annotations": {"list": list(self.annotations)},
            "links": [_sibling(self.uid, uid) for uid in TITLES if uid != self.uid],
            "panels": _placed(self.shelves),
        }


def _placed(shelves: Sequence[Shelf]) -> list[JSON]:
    panels: list[JSON] = []
    y = 0
    for shelf in shelves:
        if shelf.row:
            place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
            panels.append({"type": "row", "title": shelf.row, "collapsed": False, "panels": [], "gridPos": place})
            y += 1
        x = 0
        for panel, width in shelf.panels:
            panels.append({**panel, "gridPos": {"x": x, "y": y, "w": width, "h": shelf.height}})
            x += width
        if x > COLUMNS:
            raise ValueError(f"{x} columns of {COLUMNS} in a shelf with {shelf.panels[0][0]['title']!r}")
        y += shelf.height
    return [{"id": number, **panel} for number, panel in enumerate(panels, 1)]


def _datasource() -> JSON:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "description": "The Prometheus that scrapes pgleak.",
        "query": "prometheus",
        "regex": "",
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "skipUrlSync": False,
    }


def variable(name: str, label: str, query: str, description: str, *, many: bool = True, hidden: bool = False) -> JSON:
    """A variable whose values Prometheus knows; ``many`` allows several, and All, which matches each that is not empty."""
    choice: JSON = {
        "type": "query",
        "name": name,
        "label": label,
        "description": description,
        "datasource": SOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "regex": "",
        "hide": 2 if hidden else 0,
        "includeAll": many,
        "multi": many,
        "options": [],
        "refresh": 2,  # when the time range changes: what is gone now may have been there then
        "sort": 1,
        "skipUrlSync": False,
    }
    if many:
        choice |= {"allValue": ".+", "current": {"selected": True, "text": ["All"], "value": ["$__all"]}}
    return choice


def _handed_on(shown: Sequence[JSON]) -> Iterator[JSON]:
    """Yield, hidden, the variables of the other boards: a link hands on only what a board declares."""
    there = {one["name"] for one in shown}
    others = [("server", metrics.UP), ("application", metrics.CONNECTIONS)]
    others += [("pool", pool.CONNECTIONS), ("site", pool.HELD_CONNECTIONS)]
    for name, spec in others:
        if name not in there:
            label = "application_name" if name == "application" else name
            query, what = f"label_values({spec.name}, {label})", "Handed on to the other dashboards."
            yield variable(name, name.capitalize(), query, what, many=name != "application", hidden=True)


def _sibling(here: str, there: str) -> JSON:
    """A link at the top to another dashboard, with the time range and what is chosen here.

    The variables are spelled out: Grafana's own way to hand them on takes the chosen jobs along to a dashboard of what
    other jobs scrape, which would be empty.
    """
    names = ["datasource", *["job"] * ((here == POOL) == (there == POOL)), "server", "application", "pool", "site"]
    return {
        "type": "link",
        "title": TITLES[there],
        "tags": [],
        "asDropdown": False,
        "icon": "external link",
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
        "tooltip": "With what is chosen here",
        "url": f"/d/{there}?{'&'.join(f'${{{name}:queryparam}}' for name in names)}",
    }


def link(title: str, uid: str, *, same_jobs: bool = True, **variables: str) -> JSON:
    """A data link to a dashboard with these variables set; time range and data source go along.

    The chosen jobs do where the same ones scrape it: servers and pools may have different ones.
    """
    chosen = [f"var-{name}={value}" for name, value in variables.items()]
    carried = ["${__url_time_range}", "${datasource:queryparam}", *["${job:queryparam}"] * same_jobs]
    return {"title": title, "url": f"/d/{uid}?{'&'.join([*carried, *chosen])}", "targetBlank": False}


def mark(name: str, expr: str, colour: str, title: str) -> JSON:
    """Vertical lines where a query that gives a Unix time in milliseconds says that something happened."""
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "target": {"expr": expr, "refId": "Anno", "interval": "60s"},
        "titleFormat": title,
        "textFormat": "",
        "tagKeys": "",
        "useValueForTime": "on",
    }


def process_started(reports: str) -> JSON:
    """Mark when each process began that exposes these series of pools: the application's own, or pgleak's beside it."""
    began = f'process_start_time_seconds{{job=~"$job"}} and on (job, instance) {reports}'
    return mark("Process started", f"1000 * ({began})", colours.STARTED, "Process started: {{instance}}")
