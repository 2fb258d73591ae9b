"""The alerts for Grafana are those of rules.yml, in the form that Grafana's file provisioning reads."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

import grafana_alerts
from rules_support import ROOT, alerts

PROVISIONED = yaml.safe_load(grafana_alerts.TARGET.read_text())
RULES: list[dict[str, Any]] = [rule for group in PROVISIONED["groups"] for rule in group["rules"]]

# The fields of a group, a rule and a query: grafana/grafana, pkg/services/provisioning/alerting/rules_types.go.
_GROUP = {"orgId", "name", "folder", "interval", "rules"}
_RULE = {
    "uid", "title", "condition", "data", "noDataState", "execErrState", "for", "keepFiringFor", "labels", "annotations",
}  # fmt: skip
_QUERY = {"refId", "relativeTimeRange", "datasourceUid", "model"}


def test_the_committed_file_is_up_to_date() -> None:
    assert grafana_alerts.render("prometheus") == grafana_alerts.TARGET.read_text()


def test_it_has_every_alert_with_its_expression_and_times() -> None:
    shown = {rule["title"]: rule for rule in RULES}
    assert len(shown) == len(RULES)
    assert set(shown) == {alert.name for alert in alerts()}
    for alert in alerts():
        rule = shown[alert.name]
        assert rule["data"][0]["model"]["expr"] == alert.expr
        assert rule["for"] == (alert.pause or "0s")
        assert rule["labels"] == alert.labels


def test_grafana_knows_every_field() -> None:
    assert PROVISIONED["apiVersion"] == 1
    for group in PROVISIONED["groups"]:
        assert set(group) == _GROUP
        assert re.fullmatch(r"\d+[smh]", group["interval"])
    for rule in RULES:
        assert set(rule) - {"keepFiringFor"} == _RULE - {"keepFiringFor"}
        assert re.fullmatch(r"[a-z0-9-]{1,40}", rule["uid"])
        assert (rule["noDataState"], rule["execErrState"]) == ("OK", "Error")
        assert all(set(query) == _QUERY for query in rule["data"])
        assert rule["condition"] in {query["refId"] for query in rule["data"]}
        assert [query["datasourceUid"] for query in rule["data"]] == ["prometheus", "__expr__"]
    uids = [rule["uid"] for rule in RULES]
    assert len(uids) == len(set(uids))


def test_templates_use_what_grafana_has() -> None:
    """`$value` there is a text with all values in it, and `${...}` is taken from the environment."""
    for rule in RULES:
        for text in rule["annotations"].values():
            assert not re.search(r"\$value\b|\$\{|\$externalLabels", text), rule["title"]
            assert set(re.findall(r"\$(\w+)", text)) <= {"labels", "values"}, rule["title"]
            assert "query " not in text, "it finds nothing in Grafana"
            assert len(re.findall("{{-? (if|range)", text)) == len(re.findall("{{-? end", text)), rule["title"]


@pytest.mark.parametrize("path", ["dashboards/provisioning/datasources/pgleak.yml", "deploy/compose/datasource.yml"])
def test_the_data_sources_that_come_with_them_have_the_uid_that_they_ask(path: str) -> None:
    """Without one, Grafana makes one up, and each alert is an error."""
    (source,) = yaml.safe_load((ROOT / path).read_text())["datasources"]
    asked = {query["datasourceUid"] for rule in RULES for query in rule["data"]} - {"__expr__"}
    assert {source["uid"]} == asked


def test_another_data_source_can_be_named() -> None:
    assert "datasourceUid: mimir" in grafana_alerts.render("mimir")
    assert "datasourceUid: prometheus" not in grafana_alerts.render("mimir")
