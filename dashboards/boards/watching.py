"""The lower part of the dashboard of all servers: refusals and limits, and whether the watcher can be trusted."""

from __future__ import annotations

from boards import colours
from boards.frame import Shelf
from boards.panels import Column, Query, Say, Steps, graph, states, table
from boards.promql import HOUR, RATE, once, select
from pgleak import metrics


def refusals(full: Steps) -> Shelf:
    why = graph(
        Say(
            "Why are logins refused?",
            "Failed logins of the canary, which comes as an ordinary role does, and failed reads of pgleak, by reason. "
            "What the reasons mean is in docs/metrics.md.",
            "No login failed",
            "short",
        ),
        Query(f"max by (server, reason) (increase({select(metrics.LOGIN_FAILURES)}[$__rate_interval])) > 0", "canary: {{reason}} on {{server}}"),
        Query(f"max by (server, reason) (increase({select(metrics.SCRAPE_ERRORS)}[$__rate_interval])) > 0", "pgleak: {{reason}} on {{server}}"),
        bars=True,
    )  # fmt: skip
    role = f"max by (server, usename) ({select(metrics.ROLE_LIMIT)})"
    connected = select(metrics.CONNECTIONS)
    database = f"max by (server, datname) ({select(metrics.DATABASE_LIMIT)})"
    limits = table(
        Say(
            "Which role or database is near a limit of its own?",
            "CONNECTION LIMIT of roles and databases, which may be nearer than the server's.",
            "No role or database has a limit",
        ),
        [
            Query(
                f"{once('server, usename', connected)} / {role} or {once('server, datname', connected)} / {database}"
            ),
            Query(f"{role} or {database}"),
        ],
        [
            Column("server", "Server"),
            Column("usename", "Role"),
            Column("datname", "Database"),
            Column("A", "Full", "percentunit", 0, full, gauge=True),
            Column("B", "Limit"),
        ],
        "Full",
    )
    ends = graph(
        Say(
            "How do sessions end badly?",
            "Sessions per hour whose client vanished, that ended by a fatal error, or that an operator ended (PostgreSQL "
            "14 and later).",
            "No session ended badly",
            RATE,
        ),
        *(
            Query(
                f"{HOUR} * {once('server', f'rate({select(spec)}[$__rate_interval])')} > 0", f"{how} on {{{{server}}}}"
            )
            for spec, how in (
                (metrics.SESSIONS_ABANDONED, "client lost"),
                (metrics.SESSIONS_FATAL, "fatal error"),
                (metrics.SESSIONS_KILLED, "ended by an operator"),
            )
        ),
        bars=True,
    )
    return Shelf(8, [(why, 8), (limits, 8), (ends, 8)], row="Refusals and limits")


def _folded() -> str:
    """Return the sum of what the caps of a server fold; some of the metrics are there only while a label is in use."""
    each = " or ".join(
        f'label_replace(max by (server) ({select(spec)}), "of", "{spec.unit}", "", "")'
        for spec in (*metrics.OVERFLOWED.values(), metrics.COMBINATIONS_OVERFLOWED)
    )
    return f"sum by (server) ({each})"


def watcher() -> Shelf:
    read = states(
        Say("Is every server read?", "Whether pgleak's last read of the server succeeded.", "No server is watched"),
        Query(f"max by (server) ({select(metrics.UP)})", "{{server}}"),
        {"1": ("read", colours.GOOD), "0": ("not read", colours.BAD)},
    )
    duration = graph(
        Say("How long does a read take?", "Time that the last read of each server took.", "No server is watched", "s"),
        Query(f"max by (server) ({select(metrics.SCRAPE_DURATION)})", "{{server}}"),
    )
    trust = table(
        Say(
            "Can the figures be trusted?",
            "Age of the last successful read; whether pgleak's role sees the states of other roles; and how many "
            "applications, databases, users, addresses and combinations of them are folded into (other).",
            "No server is watched",
        ),
        [
            Query(f"time() - max by (server) ({select(metrics.LAST_SUCCESS)})"),
            Query(f"min by (server) ({select(metrics.STATS_VISIBLE)})"),
            Query(_folded()),
            Query(f"max by (server) ({select(metrics.LOGIN_SUCCESS)})"),
        ],
        [
            Column("server", "Server"),
            Column("A", "Last read", "s", 0, ((None, colours.GOOD), (300, colours.BAD))),
            Column("B", "States visible", "bool_yes_no", steps=((None, colours.BAD), (1, colours.GOOD))),
            Column("C", "Names folded", steps=((None, colours.GOOD), (1, colours.ATTENTION))),
            Column("D", "Login works", "bool_yes_no", steps=((None, colours.BAD), (1, colours.GOOD))),
        ],
        "Last read",
    )
    return Shelf(8, [(read, 8), (duration, 8), (trust, 8)], row="The watcher")
