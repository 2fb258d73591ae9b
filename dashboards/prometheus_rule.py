"""Write deploy/kubernetes/rules.yaml, for Prometheus Operator, from rules.yml; with --check, fail when it differs."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "rules.yml"
TARGET = HERE.parent / "deploy" / "kubernetes" / "rules.yaml"
_HEAD = """\
# dashboards/rules.yml for Prometheus Operator, written by dashboards/prometheus_rule.py; a test fails when they differ.
# The Prometheus must select it (ruleSelector).
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: pgleak
  labels: {app.kubernetes.io/name: pgleak}
spec:
"""


def render() -> str:
    """Return the manifest: the rules as they are, comments included."""
    return _HEAD + textwrap.indent(SOURCE.read_text(encoding="utf-8"), "  ")


def main() -> int:
    """Write, or check."""
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(render(), encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != render():
        sys.stderr.write(f"{TARGET.name} is out of date: run python dashboards/{Path(__file__).name}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
