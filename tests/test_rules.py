"""The alert rules say what they promise, in real Prometheus' own test runner, and say it with all that a reader needs."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pgleak.holders.metrics import JOIN
from pgleak.metrics import SERVER_HALF
from pgleak.pool.merged import SHARED_FOLDER
from pgleak.pool.metrics import IN_PROCESS_HALF
from rules_support import ADAPTER, RULES, RUNBOOK, TESTS, Rule, alerts, promtool, rules

if TYPE_CHECKING:
    from pathlib import Path

ALERTS = alerts()
each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
_EACH_WINDOW = {
    "growth": (
        "nightly run",
        "to spare",
        "beneath the record",
        "of one kind",
        "first hour on",
        "six hours old",
    ),
    "growth_days": (
        "on the fourth day",
        "one in two hours; another application swings",
        "four hours, in a pool",
    ),
}
"""Tickets of all windows that join by labels (`stuck5m` does not), by a part of their tests' names.

`8h` has no ticket in a test, and `3h` and `10h` join as `2d` does.
"""

_SUFFIX = re.compile(r"_(bucket|count|sum|gcount|gsum)$")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", sorted(TESTS.glob("*.yml")), ids=lambda path: path.stem)
def test_the_rules_keep_their_promises(path: Any) -> None:
    assert "SUCCESS" in promtool("test", "rules", path)


@pytest.mark.timeout(300)
def test_a_label_that_is_added_to_all_series_changes_nothing(tmp_path: Path) -> None:
    """Prometheus Operator enforces one on the series that rules record, where it is told to (enforcedNamespaceLabel)."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"] if "record" in rule):
        rule["labels"] = {**rule.get("labels", {}), "namespace": "monitoring"}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    for stem, parts in _EACH_WINDOW.items():
        content = yaml.safe_load((TESTS / f"{stem}.yml").read_text())
        content["rule_files"] = ["rules.yml"]
        content["tests"] = [test for test in content["tests"] if any(part in test["name"] for part in parts)]
        assert len(content["tests"]) == len(parts)
        for test in content["tests"]:
            test.pop("promql_expr_test", None)
            test["alert_rule_test"] = list(filter(_is_ticket, test["alert_rule_test"]))
            assert any(each.get("exp_alerts") for each in test["alert_rule_test"]), test["name"]
            for series in test["input_series"]:
                series["series"] = series["series"].replace("{", '{namespace="monitoring",', 1)
        (tmp_path / f"{stem}.yml").write_text(yaml.safe_dump(content))
        assert "SUCCESS" in promtool("test", "rules", tmp_path / f"{stem}.yml")


def _is_ticket(case: dict[str, Any]) -> bool:
    return case["alertname"] in {"PgleakLeakSuspected", "PgleakConnectionGrowth"}


@pytest.mark.parametrize("path", [RULES, ADAPTER], ids=lambda path: path.name)
def test_prometheus_accepts_the_rules(path: Any) -> None:
    assert f"{len(rules(path))} rules found" in promtool("check", "rules", path)


@each_alert
def test_an_alert_says_what_to_do(alert: Rule) -> None:
    assert alert.labels["severity"] in {"page", "ticket", "info"}
    assert set(alert.annotations) == {"summary", "description", "runbook_url"}
    assert "{{" not in alert.annotations["summary"], "the summary groups notifications, so it does not vary"
    assert "{{" in alert.annotations["description"]
    assert alert.annotations["runbook_url"].endswith(f"runbook.md#{alert.name.lower()}")


def test_the_runbook_has_one_heading_for_each_alert() -> None:
    headings = re.findall(r"^## (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert {alert.name for alert in ALERTS} <= set(headings)


@each_alert
def test_the_runbook_says_what_it_means_and_what_to_do(alert: Rule) -> None:
    _, _, rest = RUNBOOK.read_text().partition(f"\n## {alert.name}\n")
    section = rest.partition("\n## ")[0]
    parts = re.findall(r"^\*\*(\w[\w ]*)\.\*\*", section, re.MULTILINE)
    assert parts == ["Meaning", "Impact", "Diagnosis", "Mitigation", "Fix"]


@each_alert
def test_an_alert_is_tested_in_all_four_ways(alert: Rule) -> None:
    """Not yet, firing, resolved, and never on a healthy shape that has the metrics which the alert reads."""
    kinds = set()
    for test in _tests():
        judged = [each for each in test.get("alert_rule_test", ()) if each["alertname"] == alert.name]
        fires = [bool(each.get("exp_alerts")) for each in judged]
        if True in fires:
            kinds |= {"not yet"} if not fires[0] else set()
            kinds |= {"firing"}
            kinds |= {"resolved"} if not fires[-1] else set()
        elif judged and test["name"].startswith("healthy"):
            series = " ".join(each["series"] for each in test["input_series"])
            missing = {name for name in _scraped(alert) if name not in series}
            assert not missing, f"without {missing} a healthy shape proves nothing"
            kinds |= {"never"}
    assert kinds == {"not yet", "firing", "resolved", "never"}


@functools.cache
def _tests() -> list[dict[str, Any]]:
    return [test for path in sorted(TESTS.glob("*.yml")) for test in yaml.safe_load(path.read_text())["tests"]]


def _scraped(rule: Rule) -> set[str]:
    """Metrics that the rule reads, by way of recorded series too, but for those that a tie-breaker reads."""
    seen: set[str] = set()
    found, open_names = set(rule.metrics), set(rule.recorded)
    while open_names - seen:
        name = (open_names - seen).pop()
        seen.add(name)
        for each in rules(RULES):
            if each.name == name:
                found |= each.metrics
                open_names |= each.recorded
    return found - {"pgleak_application_ignored"}


def test_rules_read_what_the_exporter_shows() -> None:
    known = {spec.name for spec in (*SERVER_HALF, *IN_PROCESS_HALF, *SHARED_FOLDER, *JOIN)}
    recorded = {rule.name for rule in rules(RULES) if not rule.is_alert}
    for rule in rules(RULES):
        assert {_SUFFIX.sub("", name) for name in rule.metrics} <= known, rule.name
        assert rule.recorded <= recorded, rule.name


def test_names_are_used_once() -> None:
    names = [rule.name for rule in ALERTS]
    assert len(names) == len(set(names))


def test_what_another_group_records_seldom_is_read_over_a_range() -> None:
    """Prometheus evaluates each group at an offset of its own, and sees a sample for five minutes unless told otherwise."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    slow = {
        rule["record"]: group["name"]
        for group in groups
        if group.get("interval", "1m") in {"5m", "15m"}
        for rule in group["rules"]
        if "record" in rule
    }
    assert slow
    instant = [
        (group["name"], name)
        for group in groups
        for rule in group["rules"]
        for name in re.findall(r"([a-z]+:\w+:\w+)(?!\w)(?!(?:\{[^}]*\})?\[)", re.sub(r'"[^"]*"', '""', rule["expr"]))
        if name in slow and slow[name] != group["name"]
    ]
    # what is recorded of it is looked back at for twelve hours
    fast_too = {("pgleak-growth-exhaustion", "application:pgleak_leak:suspected")}
    assert set(instant) <= fast_too
