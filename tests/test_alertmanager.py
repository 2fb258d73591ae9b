"""The advice for Alertmanager is about alerts and labels that exist."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from rules_support import ROOT, RUNBOOK, TESTS, alerts

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "dashboards" / "alertmanager.example.yml").read_text())
_ALERTS = re.compile(r"Pgleak\w+")


def _labels_of(alert: str) -> set[str]:
    """Labels with which promtool has seen the alert fire."""
    tests = [test for path in TESTS.glob("*.yml") for test in yaml.safe_load(path.read_text())["tests"]]
    fired = [
        each["exp_labels"]
        for test in tests
        for judged in test.get("alert_rule_test", ())
        for each in judged.get("exp_alerts", ())
        if judged["alertname"] == alert
    ]
    return set.intersection(*map(set, fired)) if fired else set()


@pytest.mark.parametrize("rule", CONFIG["inhibit_rules"], ids=lambda rule: rule["source_matchers"][0])
def test_an_inhibition_joins_alerts_on_labels_that_both_have(rule: dict[str, Any]) -> None:
    named = _ALERTS.findall(" ".join((*rule["source_matchers"], *rule["target_matchers"])))
    assert len(named) >= 2
    assert set(named) <= set(re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE))
    for alert in named:
        known = _labels_of(alert)
        assert not known or set(rule["equal"]) <= known, alert


def test_every_severity_has_a_way_to_go() -> None:
    receivers = {receiver["name"] for receiver in CONFIG["receivers"]}
    routes = {re.findall(r'"(\w+)"', route["matchers"][0])[0]: route["receiver"] for route in CONFIG["route"]["routes"]}
    severities = {alert.labels["severity"] for alert in alerts()}
    assert severities - set(routes) == {"ticket"}  # the default
    assert {CONFIG["route"]["receiver"], *routes.values()} == receivers
