"""Where Prometheus is installed, the demo shows the alerts, in time to be watched, and nothing is left of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pgleak.demo.prometheus import RULES, Prometheus, faster
from rules_support import alerts, promtool
from servers import wait_until
from test_demo import Demo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_WITHIN = 120  # seconds


@pytest.fixture
def demo() -> Iterator[Demo]:
    assert shutil.which("prometheus"), "prometheus is missing: apt install prometheus"
    with contextlib.closing(Demo()) as running:
        yield running


def _ask(address: str, question: str) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{address}/api/v1/{question}", timeout=10) as answer:
        return json.load(answer)["data"]


@pytest.mark.timeout(240)
def test_the_overdue_alert_fires_and_names_the_code(demo: Demo) -> None:
    address = demo.read_until(r"alerts +(http://127\.0\.0\.1:\d+)/alerts")[1]
    started = time.monotonic()

    def firing() -> dict[str, Any]:
        found = [each for each in _ask(address, "alerts")["alerts"] if each["state"] == "firing"]
        return {each["labels"]["alertname"]: each for each in found}

    wait_until(lambda: "PgleakCheckoutOverdue" in firing(), timeout=_WITHIN, what="the overdue alert")
    assert time.monotonic() - started < _WITHIN
    overdue = firing()["PgleakCheckoutOverdue"]
    assert overdue["labels"]["site"] == "__main__:ship_next_order"
    assert "__main__:ship_next_order holds" in overdue["annotations"]["description"]
    wait_until(lambda: "PgleakIdleInTransaction" in firing(), timeout=_WITHIN, what="the alert on transactions")
    assert firing()["PgleakIdleInTransaction"]["labels"]["application_name"] == "shop"
    rules = [rule for group in _ask(address, "rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} >= {alert.name for alert in alerts()}
    assert [rule for rule in rules if rule.get("lastError")] == []

    demo.process.send_signal(signal.SIGTERM)
    assert demo.finish() == 0, demo.output
    assert demo.left_behind() == []


def test_nothing_is_left_of_prometheus_when_the_demo_is_killed(demo: Demo) -> None:
    demo.read_until("alerts +http://")
    assert any("prometheus --config.file=" in command for command in demo.processes().values())
    demo.process.kill()
    wait_until(lambda: not demo.left_behind(), what="the demo to be gone")


def test_rules_are_scaled_in_time_and_in_nothing_else(tmp_path: Path) -> None:
    rules = yaml.safe_load(RULES.read_text())
    scaled = faster(rules)
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps(scaled))
    count = sum(len(group["rules"]) for group in rules["groups"])
    assert f"{count} rules found" in promtool("check", "rules", path)
    entry = {
        "alert": "A",
        "expr": 'rate(a:b1h{le="5m"}[5m] offset 1h) > 0.5 * b[1d:5m] + last_over_time(c[90s]) or d[1h:] > 7',
        "for": "1h30m",
        "labels": {"window": "30m"},
    }
    [group] = faster({"groups": [{"name": "g", "rules": [entry]}]}, speed=60)["groups"]
    assert group["interval"] == "1s"
    [after] = group["rules"]
    assert after["for"] == "90s"
    assert after["labels"] == entry["labels"]
    assert (
        after["expr"]
        == 'rate(a:b1h{le="5m"}[5s] offset 60s) > 0.5 * b[1440s:5s] + last_over_time(c[1500ms]) or d[60s:] > 7'
    )


def test_without_a_prometheus_that_runs_the_demo_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = Prometheus(tmp_path, lambda: 1)
    assert missing.is_settled()
    assert "apt install prometheus" in missing.introduction()[0]
    missing.end()

    (tmp_path / "prometheus").symlink_to("/bin/false")
    failing = Prometheus(tmp_path, lambda: 1)
    try:
        wait_until(failing.is_settled, timeout=30, what="it to end")
        assert "did not start" in failing.introduction()[0]
    finally:
        failing.end()
