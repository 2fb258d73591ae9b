"""The lower part of the dashboard of pools: what they do all day, and whether their reports can be trusted."""

from __future__ import annotations

from boards.frame import Shelf
from boards.panels import Query, Say, graph
from boards.promql import select
from pgleak.holders import metrics as holders
from pgleak.pool import merged
from pgleak.pool import metrics as pool


def shelves() -> list[Shelf]:
    use = select(pool.USE, suffix="_bucket")
    created = select(pool.CREATE, suffix="_bucket")
    checkouts = graph(
        Say("How busy are the pools?", "Checkouts per second.", "No pool reports", "ops"),
        Query(f"sum by (pool) (rate({select(pool.CHECKOUTS)}[$__rate_interval]))", "{{pool}}"),
    )
    times = graph(
        Say(
            "How long is a connection held?",
            "Of those that came back: half were held for less than the median, one in a hundred for longer than the 99th "
            "percentile.",
            "No connection came back",
            "s",
        ),
        *(
            Query(
                f"histogram_quantile({q}, sum by (le, pool) (rate({use}[$__rate_interval])))", f"{name} ({{{{pool}}}})"
            )
            for q, name in ((0.5, "median"), (0.99, "99th percentile"))
        ),
    )
    wait = graph(
        Say(
            "How long does a checkout wait?",
            "Mean time until a connection was handed out, opening new ones included; and the 99th percentile of opening one.",
            "No checkout",
            "s",
        ),
        Query(
            f"sum by (pool) (rate({select(pool.WAIT)}[$__rate_interval])) "
            f"/ (sum by (pool) (rate({select(pool.CHECKOUTS)}[$__rate_interval])) > 0)",
            "wait ({{pool}})",
        ),
        Query(f"histogram_quantile(0.99, sum by (le, pool) (rate({created}[$__rate_interval])))", "opening ({{pool}})"),
    )
    churn = graph(
        Say(
            "How many are opened and closed?",
            "Connections per second, opened, and closed by reason. A pool that opens for each checkout is too small or absent.",
            "No pool reports",
            "ops",
        ),
        Query(f"sum(rate({select(pool.OPENED)}[$__rate_interval]))", "opened"),
        Query(
            f"sum by (reason) (rate({select(pool.CLOSED)}[$__rate_interval])) "
            f"and on (reason) sum by (reason) (increase({select(pool.CLOSED)}[$__range] @ end())) > 0",
            "closed: {{reason}}",
        ),
    )
    engines = graph(
        Say(
            "Do engines pile up?",
            "Engines alive under each pool's name, and those that hold connections which only the call that made them used, by "
            "the code that made them: one is made for each request or task.",
            "No pool reports",
        ),
        Query(f"sum by (pool) ({select(pool.ENGINES)})", "{{pool}}"),
        Query(f"sum by (pool, site) ({select(pool.UNUSED_ENGINES)}) > 0", "{{pool}}: unused, made by {{site}}"),
        steps=True,
    )
    reports = graph(
        Say(
            "Are the reports complete?",
            "Processes that report, those of them that hang, state files that were passed over, and connections that are on no "
            "server watched here. Mistakes of pgleak are bugs to report.",
            "No folder is shared",
        ),
        Query(f"sum by (application) ({select(merged.REPORTING)})", "{{application}} reporting"),
        Query(f"sum by (application) ({select(merged.STALE)}) > 0", "{{application}} stale"),
        Query(f"sum by (reason) ({select(merged.SKIPPED)}) > 0", "files skipped: {{reason}}"),
        Query(f"sum by (reason) ({select(holders.UNMATCHED)}) > 0", "on no server: {{reason}}"),
        Query(f"sum(increase({select(pool.ERRORS)}[$__rate_interval])) > 0", "mistakes of pgleak"),
        steps=True,
    )
    return [
        Shelf(8, [(checkouts, 8), (times, 8), (wait, 8)], row="Work"),
        Shelf(8, [(churn, 8), (engines, 8), (reports, 8)]),
    ]
