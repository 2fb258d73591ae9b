"""The dashboards against what Grafana publishes on npm: its types, by TypeScript's compiler, and its library of data."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import build
import mishaps
from asking import prometheus as server
from asking.board import Board, Span
from drawing import fields, rows, units
from ship.containers import run
from story import samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from asking.prometheus import Prometheus, Series

    Shown = list[dict[str, Any]]
    Show = Callable[[Sequence[tuple[Mapping[str, Any], Mapping[str, Sequence[Series]]]]], list[Shown]]

pytestmark = pytest.mark.timeout(300)

PACKAGES = ("@grafana/data@13.2.3", "@grafana/schema@13.2.3", "react@19.2.8", "react-dom@19.2.8", "typescript@5.9.3")
_HERE = Path(__file__).parent
_TYPES, _SHOWS = _HERE / "grafana_types.ts", _HERE / "grafana_shows.cjs"
_OPTIONS = ("--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--moduleResolution", "nodenext")
PATHS = sorted(build.FOLDER.glob("pgleak-*.json"))
BOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in PATHS}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where they are installed."""
    folder = tmp_path_factory.mktemp("grafana")
    # Of the library's many parts that ask for each other's versions, it is pure functions that are used.
    quiet = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--legacy-peer-deps")
    run("npm", "install", *quiet, *PACKAGES, cwd=folder)
    for source in (_TYPES, _SHOWS):
        (folder / source.name).write_text(source.read_text())
    return folder


@pytest.fixture(scope="module")
def complaints(packages: Path) -> Callable[[dict[str, Any]], str]:
    """Says what the compiler has against a dashboard."""

    def check(board: dict[str, Any]) -> str:
        source = packages / "board.ts"
        body = json.dumps(board, indent=1)
        source.write_text(f'import type {{ Board }} from "./{_TYPES.stem}.js";\nexport const board: Board = {body};\n')
        compiler = ["node", "node_modules/typescript/bin/tsc", *_OPTIONS, source.name]
        done = subprocess.run(compiler, cwd=packages, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    return check


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.stem))
def test_a_dashboard_is_of_grafanas_type(path: Path, complaints: Callable[[dict[str, Any]], str]) -> None:
    assert complaints(json.loads(path.read_text())) == ""


def test_the_compiler_sees_a_mistake_in_each_part(complaints: Callable[[dict[str, Any]], str]) -> None:
    board = json.loads((build.FOLDER / "pgleak-connections.json").read_text())
    graph = next(panel for panel in board["panels"] if panel["type"] == "timeseries")
    graph["options"]["legend"]["placement"] = "below"
    assert "below" in complaints(board)
    graph["options"]["legend"]["placement"] = "bottom"
    graph["fieldConfig"]["defaults"]["custom"]["lineColour"] = "red"
    assert "lineColour" in complaints(board)
    del graph["fieldConfig"]["defaults"]["custom"]["lineColour"]
    board["shemaVersion"] = 42
    assert "shemaVersion" in complaints(board)


def _ask_library(packages: Path, panels: Sequence[object], names: Sequence[str]) -> dict[str, Any]:
    asked = json.dumps({"panels": panels, "names": names})
    done = subprocess.run(["node", _SHOWS.name], cwd=packages, input=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _frame(reference: str, answer: Sequence[Series]) -> dict[str, Any]:
    """An answer as Grafana's Prometheus data source hands it on: a column for each label, and the value."""
    labels = sorted({label for series in answer for label in series.labels})
    columns = [{"name": "Time", "type": "time", "values": [series.points[-1][0] * 1000 for series in answer]}]
    columns += [
        {"name": label, "type": "string", "values": [series.labels.get(label, "") for series in answer]}
        for label in labels
    ]
    columns += [{"name": f"Value #{reference}", "type": "number", "values": [series.last for series in answer]}]
    return {"refId": reference, "fields": columns}


@pytest.fixture(scope="module")
def show(packages: Path) -> Show:
    """Says what Grafana makes of panels with the answers to their queries."""

    def show(panels: Sequence[tuple[Mapping[str, Any], Mapping[str, Sequence[Series]]]]) -> list[Shown]:
        asked = [
            {"panel": panel, "frames": [_frame(*one) for one in answers.items() if one[1]]} for panel, answers in panels
        ]
        found: list[Shown] = _ask_library(packages, asked, [])["panels"]
        return found

    return show


@pytest.fixture(scope="module", params=["story", "mishaps"])
def answers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], list[tuple[Any, Any]]]]:
    """The panels of one kind, with what their queries give on a Prometheus with the story's last hours, or with mishaps."""
    folder = tmp_path_factory.mktemp("samples")
    if request.param == "story":
        span = Span(samples.END - 6 * 3600, samples.END, 240.0)
        server.backfill(folder, samples.lines(samples.END - 8 * 3600, span.scrape_interval))
    else:
        span = Span(mishaps.BEGIN, mishaps.END, mishaps.STEP)
        server.backfill(folder, mishaps.lines())
    boards = [Board(board, {"application": ("shop",)}, span) for board in BOARDS.values()]

    def ask(board: Board, panel: Mapping[str, Any], prometheus: Prometheus) -> dict[str, list[Series]]:
        return {target["refId"]: board.ask(prometheus, target, 60) for target in panel["targets"]}

    with server.running(folder) as prometheus:
        yield lambda kind: [
            (panel, ask(board, panel, prometheus))
            for board in boards
            for panel in board.panels()
            if panel["type"] == kind
        ]


def test_grafana_shows_the_cells_that_the_pictures_show(
    show: Show, answers: Callable[[str], list[tuple[Any, Any]]]
) -> None:
    """Rows joined from several queries, columns, numbers with their units, and what stands in a cell without a value."""
    tables = [(panel, answer) for panel, answer in answers("table") if any(answer.values())]
    assert len(tables) >= 4
    for (panel, answer), shown in zip(tables, show(tables), strict=True):
        titles, cells = rows.organised(panel, rows.merged(answer))
        drawn = {title: [_cell(panel, title, row[at]) for row in cells] for at, title in enumerate(titles)}
        there = {column["title"]: column["texts"] for column in shown}
        assert there.keys() == drawn.keys(), panel["title"]
        assert sorted(zip(*(there[title] for title in titles), strict=True)) == sorted(
            zip(*drawn.values(), strict=True)
        )
        assert panel["fieldConfig"]["defaults"]["noValue"] not in {text for texts in there.values() for text in texts}


def _cell(panel: Mapping[str, Any], title: str, value: rows.Cell | None) -> str:
    field = fields.of(panel, title)
    if value is None or isinstance(value, str):
        return value or str(field["noValue"])
    return units.text(value, field["unit"], field.get("decimals"))


def test_a_cell_without_a_value_looks_like_no_judgement(
    show: Show, answers: Callable[[str], list[tuple[Any, Any]]]
) -> None:
    plain = fields.TEXT
    found = set()
    tables = [(panel, answer) for panel, answer in answers("table") if any(answer.values())]
    for (panel, _), shown in zip(tables, show(tables), strict=True):
        for column in shown:
            nothing = fields.of(panel, column["title"])["noValue"]
            cells = zip(column["texts"], column["colors"], strict=True)
            found |= {colour for text, colour in cells if text == nothing and text != "0"}
    assert {colour.upper() for colour in found} == {plain}


def test_grafana_shows_the_tiles_that_the_pictures_show(
    show: Show, answers: Callable[[str], list[tuple[Any, Any]]]
) -> None:
    tiles = answers("stat")
    for (panel, answer), shown in zip(tiles, show(tiles), strict=True):
        field = panel["fieldConfig"]["defaults"]
        if given := [one for series in answer.values() for one in series]:
            value = given[0].last
            text = fields.mapped(field, value) or units.text(value, field["unit"], field.get("decimals"))
            assert [one["text"] for one in shown] == [text], panel["title"]
            if panel["options"]["colorMode"] != "none":
                assert shown[0]["color"] == fields.colour(field, "", value)


def test_a_tile_without_data_says_so_in_its_colour(show: Show) -> None:
    tiles = [panel for board in BOARDS.values() for panel in board["panels"] if panel["type"] == "stat"]
    for panel, shown in zip(tiles, show([(panel, {}) for panel in tiles]), strict=True):
        defaults = panel["fieldConfig"]["defaults"]
        assert [one["text"] for one in shown] == [defaults["noValue"]]
        if panel["options"]["colorMode"] != "none":
            mapping, *_ = defaults["mappings"]
            assert shown[0]["color"] == mapping["options"]["result"]["color"]


def test_a_name_has_the_colour_that_it_has_in_the_pictures(packages: Path) -> None:
    names = ["orders", "shop (shop) on orders", "shop.jobs:ship_next_order", "limit", "", *map(str, range(200))]
    found = _ask_library(packages, [], names)["colours"]
    assert found == {name: fields.by_name(name) for name in names}
