"""Write grafana-alerts.yml, for Grafana-managed alerting, from rules.yml; with --check, fail when the committed one differs.

The format is that of Grafana's file provisioning, versions 12 and newer (`keepFiringFor`). Only the alerts are translated:
the recorded series that they read come from Prometheus, which goes on evaluating rules.yml. `--datasource UID` names that
Prometheus as Grafana knows it.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "rules.yml"
TARGET = HERE / "grafana-alerts.yml"
_HEAD = """\
# The alerts of rules.yml for Grafana-managed alerting, written by grafana_alerts.py; a test fails when they differ.
# Put it into provisioning/alerting/ of Grafana 12 or newer. The recording rules stay where they are, in Prometheus.
# Have either these or the alerts of rules.yml notify, not both.
# They ask the data source whose uid is {datasource}; for another: python dashboards/grafana_alerts.py --datasource UID
"""


def provisioning(source: dict[str, Any], datasource: str) -> dict[str, Any]:
    """Translate the groups of a rule file that have alerts."""
    groups = [
        {
            "orgId": 1,
            "name": group["name"],
            "folder": "pgleak",
            "interval": group.get("interval", "1m"),
            "rules": [_rule(entry, datasource) for entry in group["rules"] if "alert" in entry],
        }
        for group in source["groups"]
    ]
    return {"apiVersion": 1, "groups": [group for group in groups if group["rules"]]}


def _rule(entry: dict[str, Any], datasource: str) -> dict[str, Any]:
    name = entry["alert"]
    return {
        "uid": name.lower(),  # of 40 characters at most
        "title": name,
        "condition": "B",
        "data": [
            _query("A", datasource, {"expr": entry["expr"], "instant": True, "range": False}),
            # Prometheus fires for each series that is there, whatever its value: 0 would be no alert in a threshold.
            _query("B", "__expr__", {"type": "math", "expression": "is_number($A) || is_inf($A)"}),
        ],
        "noDataState": "OK",  # no series, no alert; that nothing is scraped is PgleakAbsent's
        "execErrState": "Error",
        "for": entry.get("for", "0s"),
        **({"keepFiringFor": entry["keep_firing_for"]} if "keep_firing_for" in entry else {}),
        "labels": entry["labels"],
        "annotations": {key: _template(text) for key, text in entry["annotations"].items()},
    }


def _query(ref_id: str, datasource: str, model: dict[str, Any]) -> dict[str, Any]:
    kind = datasource if datasource == "__expr__" else "prometheus"
    return {
        "refId": ref_id,
        "relativeTimeRange": {"from": 600, "to": 0},
        "datasourceUid": datasource,
        "model": {"refId": ref_id, "datasource": {"type": kind, "uid": datasource}, **model},
    }


def _template(text: str) -> str:
    """Rewrite a template: Grafana's `$value` is a text that describes all values, and its query() finds nothing.

    So the question stands where Prometheus would have put the answer.
    """
    text = re.sub(r"\{\{ range query \((printf .+?)\) \}\}.*?\{\{ end \}\}", r"[{{ \1 }}]", text)
    return re.sub(r"\$value\b", "$values.A.Value", text)


class _Dumper(yaml.SafeDumper):
    """Expressions on lines of their own, as they were written; nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def render(datasource: str) -> str:
    """Return the file's text."""
    translated = provisioning(yaml.safe_load(SOURCE.read_text()), datasource)
    return _HEAD.format(datasource=datasource) + yaml.dump(
        translated, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--datasource", metavar="UID", default="prometheus", help="of Prometheus in Grafana (%(default)s)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    text = render(options.datasource)
    if options.check:
        if TARGET.read_text() != text:
            sys.stderr.write(f"{TARGET.name} is out of date: run python dashboards/{Path(__file__).name}\n")
            return 1
    else:
        TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
