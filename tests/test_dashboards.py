"""The dashboards that are committed: built from the catalogue, complete, and importable anywhere."""

from __future__ import annotations

import json
import math
import re
from itertools import combinations
from typing import Any

import pytest
import yaml

import build
from boards import colours, frame
from boards.promql import APPLICATION, select
from pgleak import metrics
from pgleak.holders.metrics import JOIN
from pgleak.pool.merged import SHARED_FOLDER
from pgleak.pool.metrics import IN_PROCESS_HALF

FILES = sorted(build.FOLDER.glob("pgleak-*.json"))
BOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in FILES}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]
CATALOGUE = {spec.name: spec for spec in (*metrics.SERVER_HALF, *IN_PROCESS_HALF, *SHARED_FOLDER, *JOIN)}
# What is asked for and is not pgleak's: what every client library exposes of its process.
FOREIGN = {"process_start_time_seconds"}
RULES = re.compile(r"\b(?:application|server):\w+:\w+")
RATES = {"suffix:/h", "suffix:connections/h"}
UNITS = {"none", "short", "s", "percentunit", "ops", *RATES}

NOUNS = {
    "Applications by growth", "Connections", "Connections held too long", "Fullest pool", "Fullest server",
    "Longest time unused", "Orphaned connections", "Processes", "Refused logins", "Collected checkouts", "Servers",
    "Share of the server", "Timeouts", "Unread servers", "Waiting requests",
}  # fmt: skip

each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
each_panel = pytest.mark.parametrize("panel", PANELS)


def test_the_files_are_what_the_builder_writes() -> None:
    assert {path: path.read_text() for path in FILES} == build.texts()


def test_the_builder_refuses_a_label_or_a_series_that_the_metric_does_not_have() -> None:
    with pytest.raises(ValueError, match="no label state"):
        select(metrics.USED, 'state="idle"')
    with pytest.raises(ValueError, match="no _bucket"):
        select(metrics.USED, suffix="_bucket")
    with pytest.raises(ValueError, match="has no series of its own"):
        select(metrics.IDLE_SECONDS)


@each_board
def test_a_board_imports_into_any_grafana(board: dict[str, Any]) -> None:
    """Classic JSON without inputs to fill in; nothing depends on the number or name that something has in one Grafana."""
    assert board["id"] is None
    assert board["schemaVersion"] == frame.SCHEMA_VERSION
    assert re.fullmatch(r"[a-z-]{1,40}", board["uid"])
    assert not {"__inputs", "__requires", "__elements"} & board.keys()
    first, *others = board["templating"]["list"]
    assert (first["type"], first["name"], first["query"]) == ("datasource", "datasource", "prometheus")
    assert [one["type"] for one in others] == ["query"] * len(others)
    sources = {json.dumps(source, sort_keys=True) for source in _values(board, "datasource")}
    assert sources == {json.dumps({"type": "prometheus", "uid": "${datasource}"}, sort_keys=True)}


def _values(tree: object, key: str) -> list[object]:
    if isinstance(tree, list):
        return [found for one in tree for found in _values(one, key)]
    if isinstance(tree, dict):
        return [value for name, value in tree.items() if name == key] + _values(list(tree.values()), key)
    return []


@each_board
def test_panels_fill_the_grid_without_overlap(board: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert all(0 <= x < frame.COLUMNS for x, _ in cells), panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
    rows = max(y for _, y in taken) + 1
    assert len(taken) == rows * frame.COLUMNS, "a hole"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    titles = [panel["title"] for panel in board["panels"]]
    assert len(set(titles)) == len(titles)


@each_board
def test_variables_are_used_and_carried_along(board: dict[str, Any]) -> None:
    text = json.dumps([board["panels"], board["annotations"]])
    names = [one["name"] for one in board["templating"]["list"]]
    assert names[:2] == ["datasource", "job"]
    for one in board["templating"]["list"]:
        used = re.search(rf"\$\{{?{one['name']}\b", text) is not None
        assert used != (one["hide"] == 2), f"${one['name']} is for nothing, or is hidden"
    assert set(names) == {"datasource", "job", "server", "application", "pool", "site"}, "else it is lost on the way"
    asked = set(re.findall(r"\$\{?(\w+)", " ".join(str(expr) for expr in _values(board["panels"], "expr"))))
    assert asked <= {*names, "__range", "__interval", "__rate_interval"}


@each_board
def test_the_links_at_the_top_lead_to_the_other_boards_with_what_is_chosen(board: dict[str, Any]) -> None:
    """But not the jobs, where servers and pools part: those that scrape the one may not scrape the other."""
    names = {one["name"] for one in board["templating"]["list"]}
    led = {}
    for link in board["links"]:
        assert link["keepTime"]
        assert not link["includeVars"], "it would take the jobs along"
        uid, _, query = link["url"].removeprefix("/d/").partition("?")
        assert link["title"] == BOARDS[uid]["title"]
        led[uid] = set(re.findall(r"\$\{(\w+):queryparam\}", query))
    assert led.keys() == BOARDS.keys() - {board["uid"]}
    for uid, carried in led.items():
        assert names - carried == ({"job"} if frame.POOL in {uid, board["uid"]} else set())


def test_links_lead_to_boards_and_variables_that_exist() -> None:
    """And what they take from a row or a series is there."""
    variables = {uid: {one["name"] for one in board["templating"]["list"]} for uid, board in BOARDS.items()}
    assert {board["uid"] for board in BOARDS.values()} == BOARDS.keys() == {path.stem for path in FILES}
    found = 0
    for panel in (panel for param in PANELS for panel in param.values):
        assert isinstance(panel, dict)
        columns = {one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]}
        grouped = " ".join(target["expr"] for target in panel["targets"])
        for link in (link for links in _links(panel) for link in links):
            found += 1
            uid, _, query = link["url"].removeprefix("/d/").partition("?")
            assert set(re.findall(r"var-(\w+)=", query)) <= variables[uid]
            crossing = (uid == frame.POOL) != (panel in BOARDS[frame.POOL]["panels"])
            assert ("${job:queryparam}" in query) != crossing, "servers and pools may be scraped by different jobs"
            assert set(re.findall(r"__data\.fields\.(\w+)", query)) <= columns, panel["title"]
            for label in re.findall(r"__field\.labels\.(\w+)", query):
                assert re.search(rf"by \([^)]*\b{label}\b", grouped), panel["title"]
    assert found


def _links(panel: dict[str, Any]) -> list[list[dict[str, Any]]]:
    of_columns = [
        one["value"]
        for override in panel["fieldConfig"]["overrides"]
        for one in override["properties"]
        if one["id"] == "links"
    ]
    return [panel["fieldConfig"]["defaults"].get("links", []), *of_columns]


@each_panel
def test_a_panel_says_what_it_is(panel: dict[str, Any]) -> None:
    assert panel["title"][0].isupper()
    assert len(panel["title"]) < 60
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] in UNITS
    assert defaults["noValue"]
    assert not defaults["noValue"].endswith(".")
    assert panel["targets"]


@each_panel
def test_a_cell_without_a_value_does_not_say_that_there_is_no_data_at_all(panel: dict[str, Any]) -> None:
    """Grafana writes the panel's text for no data into each empty cell whose column has none of its own."""
    if panel["type"] == "table":
        for override in panel["fieldConfig"]["overrides"]:
            (nothing,) = (one["value"] for one in override["properties"] if one["id"] == "noValue")
            assert nothing != panel["fieldConfig"]["defaults"]["noValue"], override["matcher"]["options"]
        (organised,) = (one["options"] for one in panel["transformations"] if one["id"] == "organize")
        columns = {one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]}
        assert columns == set(organised["renameByName"].values())


def test_a_title_is_a_question_or_a_plain_noun() -> None:
    titles = {panel["title"] for param in PANELS for panel in param.values if isinstance(panel, dict)}
    assert {title for title in titles if not title.endswith("?")} == NOUNS


@each_panel
def test_thresholds_stand_only_where_colour_shows_them(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    steps = [defaults.get("thresholds", {"steps": []})["steps"], *_thresholds(panel)]
    assert all(one[0]["value"] is None for one in steps if one)
    if panel["type"] in {"timeseries", "heatmap", "state-timeline"}:
        assert all(len(one) <= 1 for one in steps)
    for one in steps:
        bounds = [step["value"] for step in one[1:]]
        assert bounds == sorted(bounds)
        assert {step["color"] for step in one} <= {"text", colours.GOOD, colours.ATTENTION, colours.BAD}


@each_panel
def test_a_coloured_tile_has_a_colour_for_no_data(panel: dict[str, Any]) -> None:
    """Without one Grafana takes that of the lowest value, which says that all is well, or nothing is.

    And never the green one: a Prometheus that has lost pgleak knows nothing.
    """
    if panel["options"].get("colorMode") == "background_solid":
        mapping, *_ = panel["fieldConfig"]["defaults"]["mappings"]
        assert mapping["options"]["match"] == "null"
        assert mapping["options"]["result"]["text"] == panel["fieldConfig"]["defaults"]["noValue"]
        assert mapping["options"]["result"]["color"] == colours.UNKNOWN


def _thresholds(panel: dict[str, Any]) -> list[list[dict[str, Any]]]:
    return [
        one["value"]["steps"]
        for override in panel["fieldConfig"]["overrides"]
        for one in override["properties"]
        if one["id"] == "thresholds"
    ]


def _fixed_colours() -> dict[str, set[str]]:
    """The colours that are set by a series' name, by that name."""
    found: dict[str, set[str]] = {}
    for param in PANELS:
        (panel,) = param.values
        assert isinstance(panel, dict)
        for override in panel["fieldConfig"]["overrides"]:
            for one in override["properties"]:
                if one["id"] == "color" and one["value"]["mode"] == "fixed":
                    found.setdefault(override["matcher"]["options"], set()).add(one["value"]["fixedColor"])
    return found


def test_a_name_has_the_same_colour_wherever_it_is_set() -> None:
    found = _fixed_colours()
    assert found["/limit$/"] == {colours.LIMIT}
    assert {name: seen for name, seen in found.items() if len(seen) > 1} == {}


def test_no_colour_means_two_things() -> None:
    """Nor is one so near to another that they would be taken for each other; no series looks like a judgement.

    Heat maps and marks have theirs from the same list: whatever is coloured on a board means what the list says.
    """
    meanings = {name: value for name, value in vars(colours).items() if isinstance(value, str) and name.isupper()}
    mixed = {name: [int(value[at : at + 2], 16) for at in (1, 3, 5)] for name, value in meanings.items()}
    pairs = combinations(mixed, 2)
    assert [(one, other) for one, other in pairs if math.dist(mixed[one], mixed[other]) < 40] == []
    judged = {colours.GOOD, colours.ATTENTION, colours.BAD}
    assert not set().union(*_fixed_colours().values()) & judged
    keys = ("color", "fixedColor", "iconColor", "fill")
    shown = {value for key in keys for value in _values(list(BOARDS.values()), key) if isinstance(value, str)}
    assert shown - {"text", "dash"} == set(meanings.values())  # "fill" of a line is how it is dashed


@each_panel
def test_what_tells_applications_apart_is_shown(panel: dict[str, Any]) -> None:
    """Else one application with two roles is two lines, or two rows, of the same name."""
    for target in panel["targets"]:
        if panel["type"] != "table" and "{{application_name}}" in target["legendFormat"]:
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) == set(APPLICATION), panel["title"]
    columns = {one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]}
    if "Application" in columns and panel["title"] != "Which code holds connections too long?":
        assert {"Server", "User"} <= columns


@each_panel
def test_queries_name_series_of_the_catalogue_only(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        bare = RULES.sub("", re.sub(r'"[^"]*"', "", target["expr"]))
        named = set(re.findall(r"\b(?:pgleak|sqlalchemy|process)_\w+", bare)) - FOREIGN
        for name in named:
            spec = CATALOGUE.get(re.sub(r"_(?:bucket|gcount|gsum|count|sum)$", "", name)) or CATALOGUE.get(name)
            assert spec, name
            if spec.kind == "counter":
                assert re.search(rf"\b(?:rate|increase)\({name}{{", target["expr"]), f"{name} only grows"
        assert named or RULES.search(target["expr"])
        # A panel that asks a rule asks the scraped series as well: it shows something where no rules are loaded.
        assert not RULES.search(target["expr"]) or (named and " or " in target["expr"])


def test_what_is_asked_of_the_rules_is_recorded_by_them() -> None:
    groups = yaml.safe_load((build.FOLDER / "rules.yml").read_text())["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    asked = set(RULES.findall(json.dumps(list(BOARDS.values()))))
    assert asked
    assert asked <= recorded


@each_panel
def test_queries_follow_the_rules_of_grafanas_linter(panel: dict[str, Any]) -> None:
    """Each scraped series is of the chosen jobs, and a rate is over an interval that always holds enough samples."""
    for target in panel["targets"]:
        for selector in re.findall(r"\b(?:pgleak|sqlalchemy)_\w+({[^}]*})?", RULES.sub("", target["expr"])):
            assert 'job=~"$job"' in selector
        assert set(re.findall(r"\brate\([^\[]*\[([^\]]*)\]", target["expr"])) <= {"$__rate_interval"}


@each_board
def test_the_board_follows_the_rules_of_grafanas_linter(board: dict[str, Any]) -> None:
    assert board["editable"] is False
    source, job, *_ = board["templating"]["list"]
    assert (source["label"], job["label"]) == ("Data source", "Job")
    for one in board["templating"]["list"][1:]:
        assert one["refresh"] == 2, "what was there in the time that is shown"
        assert one.get("allValue", ".+") == ".+"
        assert one["multi"] == one["includeAll"]


def test_each_exception_from_the_linter_is_needed_and_has_a_reason() -> None:
    excluded = yaml.safe_load((build.FOLDER / ".lint").read_text())["exclusions"]
    assert all(rule["reason"] for rule in excluded.values())
    panels = [panel for param in PANELS for panel in param.values if isinstance(panel, dict)]

    def listed(rule: str) -> set[str]:
        return {entry["panel"] for entry in excluded[rule]["entries"]}

    by_rules = {one["title"] for one in panels if any(RULES.search(target["expr"]) for target in one["targets"])}
    assert listed("target-job-rule") == by_rules
    assert listed("panel-units-rule") == {one["title"] for one in panels if _unit(one) in RATES}


def _unit(panel: dict[str, Any]) -> str:
    """The unit that the linter takes for the panel's: the last of an override, else the panel's own."""
    overrides = [one for override in panel["fieldConfig"]["overrides"] for one in override["properties"]]
    units = [panel["fieldConfig"]["defaults"]["unit"], *(one["value"] for one in overrides if one["id"] == "unit")]
    return str(units[-1])


@each_panel
def test_a_heat_map_shows_what_is_now(panel: dict[str, Any]) -> None:
    """The buckets of a gauge histogram are not counters: their values are the picture."""
    if panel["type"] == "heatmap":
        (target,) = panel["targets"]
        assert target["format"] == "heatmap"
        assert re.match(r"sum by \(le\) \(", target["expr"])
        assert not re.search(r"rate|increase", target["expr"])


def test_the_first_screen_says_which_server_when_and_because_of_whom() -> None:
    """On 1080 lines, of which Grafana's own bars take about 200."""
    first = [panel for panel in BOARDS[frame.CONNECTIONS]["panels"] if panel["gridPos"]["y"] * 38 < 880]
    above = [panel["title"] for panel in first if (panel["gridPos"]["y"] + panel["gridPos"]["h"]) * 38 <= 880]
    assert {"Which server is full first?", "Because of which application?", "Servers", "Applications by growth"} <= set(
        above
    )


def test_grafana_finds_the_dashboards_by_the_provisioning_files() -> None:
    folder = build.FOLDER / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "pgleak.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    (provider,) = yaml.safe_load((folder / "dashboards" / "pgleak.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/")


def test_the_readme_shows_the_picture() -> None:
    root = build.FOLDER.parent
    shown = [
        (page.parent / picture).resolve()
        for page in (root / "README.md", root / "docs" / "dashboards.md")
        for picture in re.findall(r"!\[[^\]]+\]\(([\w./-]+\.png)\)", page.read_text())
    ]
    assert sorted(shown) == sorted((root / "docs" / "images").glob("pgleak-*.png"))
    assert {path.stem for path in shown} == BOARDS.keys()
    assert all(path.stat().st_size < 300 * 1024 for path in shown)
