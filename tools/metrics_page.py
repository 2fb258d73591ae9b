"""Write docs/metrics.md from the catalogue; with --check, fail when the committed page differs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import ProcessCollector

from pgleak import metrics
from pgleak.holders.metrics import JOIN
from pgleak.pool.merged import SHARED_FOLDER
from pgleak.pool.metrics import IN_PROCESS_HALF, OPENTELEMETRY
from pgleak.postgres.activity import STATES
from pgleak.postgres.reasons import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgleak.spec import Spec

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"

HEAD = """\
# Metrics

Written by `tools/metrics_page.py` from the catalogue `exporter/pgleak/metrics.py`; a test fails when they differ.

Ages are seconds at the moment of the scrape. `server` is the name of the target in the settings. The labels `datname`,
`usename` and `application_name` are there by default and `client_addr` where `group_by` asks for it; `application_name`
is `(unset)` where a client gave none. Each of these labels has at most as many values as its cap allows; the rest is summed
up under `(other)`, and under `(other ignored)` what is exempt from judgement. All values of one server come from one statement,
and so from one moment. An application that falls to zero is reported as 0 for one hour.

A gauge histogram has the series `_bucket` (cumulative, by `le`), `_gcount` and `_gsum`.

## Server half

What `pgleak serve` exposes.

"""


def row(spec: Spec) -> str:
    labels = ", ".join(f"`{label}`" for label in spec.labels) or "-"
    kind = {"gaugehistogram": "gauge histogram"}.get(spec.kind, spec.kind)
    buckets = f" Buckets: {', '.join(f'{bound:g}' for bound in spec.buckets)}, +Inf." if spec.buckets else ""
    note = f" {spec.note}" if spec.note else ""
    return f"| `{spec.name}` | {kind} | {labels} | {spec.unit or '-'} | {spec.help}{buckets}{note} |"


def table(specs: Iterable[Spec]) -> list[str]:
    return ["| metric | type | labels | unit | meaning |", "|---|---|---|---|---|", *(row(spec) for spec in specs)]


def page() -> str:
    lines = [
        *table(metrics.SERVER_HALF),
        "",
        "## In-process half",
        "",
        "What an application shows with `pgleak.PoolCollector`, and `pgleak serve --pool-dir` for all of its processes.",
        "`site` is `module:function`, without a line, so that a deploy does not churn the series; the line is in the log.",
        "",
        *table(IN_PROCESS_HALF),
        "",
        "Where processes share a folder (`PGLEAK_DIR`):",
        "",
        *table(SHARED_FOLDER),
        "",
        "Where servers are watched beside such a folder, on `/metrics`; `pgleak who` shows each connection:",
        "",
        *table(JOIN),
        "",
        "In OpenTelemetry's semantic conventions the same is called:",
        "",
        "| OpenTelemetry | here |",
        "|---|---|",
        *(f"| `{theirs}` | `{ours}` |" for theirs, ours in OPENTELEMETRY),
        "",
        "## The exporter's own process",
        "",
        "`pgleak serve` describes its own process on `/metrics`, where the system has `/proc`, with prometheus_client's",
        "collector; `/probe` leaves it out.",
        "",
        "| metric | type | meaning |",
        "|---|---|---|",
        *(
            f"| `{family.samples[0].name}` | {family.type} | {family.documentation} |"
            for family in ProcessCollector(registry=None).collect()
        ),
        "",
        "## States",
        "",
        "Values of `state` in `pgleak_connections`.",
        "",
        "| state | meaning |",
        "|---|---|",
        *(f"| `{state}` | {meaning} |" for state, meaning in STATES.items()),
        "",
        "## Reasons",
        "",
        "Values of `reason` in `pgleak_scrape_errors_total` and `pgleak_login_failures_total`.",
        "",
    ]
    lines += ["| reason | meaning |", "|---|---|"]
    lines += [f"| `{reason}` | {meaning} |" for reason, meaning in REASONS.items()]
    return HEAD + "\n".join(lines) + "\n"


def main() -> int:
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write(f"{PAGE.name} is not what the catalogue says: run tools/metrics_page.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
