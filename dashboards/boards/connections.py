"""All servers: which one fills up, when, and because of whom?"""

from __future__ import annotations

from boards import colours, frame, watching
from boards.frame import Board, Shelf, link, mark, variable
from boards.panels import JSON, Column, Query, Say, Well, graph, limit, stat, table
from boards.promql import PER_APPLICATION, RATE, floor, growth, leaders, select
from boards.servers import (
    CODE,
    CONNECTIONS,
    FULL,
    GROWTH,
    LEAK_GROWTH,
    POOL_SUSPECTS,
    SERVER_GROWTH,
    SUSPECTS,
    TIME_LEFT,
    UP,
    USABLE,
    USED,
)
from pgleak import metrics

_SHOWN = 8  # applications on one graph
_REFUSED = 'reason=~"slots_exhausted|role_limit|database_limit"'

URGENT = ((None, colours.BAD), (86400, colours.ATTENTION), (3 * 86400, colours.GOOD))
FILLING = ((None, colours.GOOD), (0.7, colours.ATTENTION), (0.9, colours.BAD))
PLAIN = ((None, "text"),)
SOME_IS_BAD = ((None, colours.GOOD), (1, colours.BAD))
NAME = "{{application_name}} ({{usename}}) on {{server}}"
"""What an application is called wherever it is one of several: the same name has the same colour on every panel.

With its role, for one application may come with two."""

_SERVER_LINK = link("This server alone", frame.CONNECTIONS, server="${__data.fields.Server:percentencode}")
_APPLICATION_LINK = link(
    "This application",
    frame.APPLICATION,
    server="${__data.fields.Server:percentencode}",
    application="${__data.fields.Application:percentencode}",
)
_CODE_LINK = link("This place in the code", frame.POOL, same_jobs=False, site="${__data.fields.Code:percentencode}")
_SERIES_LINK = link(
    "This application",
    frame.APPLICATION,
    server="${__field.labels.server:percentencode}",
    application="${__field.labels.application_name:percentencode}",
)


def _answers() -> Shelf:
    full = stat(
        Say(
            "Which server is full first?",
            "Time until the first server refuses ordinary roles, if a leak goes on growing as it did in the last hours. "
            "Growth without connections that look leaked is load and counts for nothing here.",
            "Not known",
            "s",
            1,
        ),
        Query(f"bottomk(1, {TIME_LEFT})", "{{server}}"),
        URGENT,
        named=True,
        well=Well(SUSPECTS, "None by a leak within 30 days", "of all servers"),
    )
    grows = stat(
        Say(
            "Because of which application?",
            "Of the applications whose connections look leaked, the one whose floor rises fastest, in connections per hour.",
            "Not known",
            "suffix:connections/h",
            1,
        ),
        Query(f"topk(1, ({LEAK_GROWTH}) >= 0.5)", NAME),
        ((None, colours.ATTENTION), (1, colours.ATTENTION)),
        named=True,
        links=[_SERIES_LINK],
        well=Well(SUSPECTS, "No leak grows", "of all applications"),
    )
    suspects = stat(
        Say(
            "Who holds connections that look leaked?",
            "The application with the most suspects: connections stuck in a transaction, never used again after their "
            "first seconds, or passed over by their own pool. Until the server shows any, what the application's pools report: "
            "held beyond what is in order, by a thread that has ended, or by nobody.",
            "Ages are not visible",
        ),
        Query(
            f"topk(1, {SUSPECTS} > 0 or {POOL_SUSPECTS} > 0 unless on (server, application_name) {SUSPECTS} > 0)", NAME
        ),
        ((None, colours.GOOD), (3, colours.ATTENTION), (10, colours.BAD)),
        named=True,
        links=[_SERIES_LINK],
        well=Well(SUSPECTS, "Nobody", "of all applications"),
    )
    fullest = stat(
        Say(
            "Fullest server",
            "Of the connections that ordinary roles may open, those that are taken; on the server where that is most.",
            "Not known",
            "percentunit",
            0,
        ),
        Query(f"topk(1, {FULL})", "{{server}}"),
        FILLING,
        named=True,
    )
    kinds = (metrics.SCRAPE_ERRORS, metrics.LOGIN_FAILURES)  # the second only where there is a canary
    each = (f"max by (server, reason) (increase({select(spec, _REFUSED)}[1h]))" for spec in kinds)
    both = " + ".join(f"(sum({one}) or vector(0))" for one in each)
    refused = stat(
        Say(
            "Refused logins",
            "Logins of the canary and of pgleak itself that a server refused in the last hour because it, a role or a database was full.",
            "Not known",
            decimals=0,
        ),
        Query(f"({both}) and on () {UP}", "refused"),
        SOME_IS_BAD,
    )
    unread = stat(
        Say(
            "Unread servers",
            "Servers that pgleak could not read at its last attempt; see The watcher.",
            "None watched",
        ),
        Query(f"count({UP}) - sum({UP})", "not read"),
        SOME_IS_BAD,
    )
    return Shelf(4, [(full, 5), (grows, 5), (suspects, 5), (fullest, 3), (refused, 3), (unread, 3)])


def _curves() -> Shelf:
    used, usable = (f"max by (server) ({select(spec)} @ end())" for spec in (metrics.USED, metrics.USABLE))
    fullest = f"{used} / {usable}"
    full = limit(
        graph(
            Say(
                "How full is each server?",
                "Connections taken, of those that ordinary roles may open: max_connections less what is reserved. At the limit "
                f"(dashed) they are refused. The {_SHOWN} fullest servers.",
                "No server is watched",
                "percentunit",
                0,
            ),
            Query(leaders(FULL, fullest, _SHOWN, "server"), "{{server}}"),
            Query(f"group({select(metrics.USABLE)})", "limit"),
            links=[link("This server alone", frame.CONNECTIONS, server="${__field.labels.server:percentencode}")],
        )
    )
    ranking = growth(CONNECTIONS, " @ end()")
    grows = graph(
        Say(
            "Which application grows?",
            f"The lowest number of connections in the last half hour, of the {_SHOWN} applications that grow fastest: a "
            "leak climbs, load comes and goes.",
            "No application has grown in the last six hours",
        ),
        Query(leaders(floor(CONNECTIONS), ranking, _SHOWN), NAME),
        links=[_SERIES_LINK],
    )
    ever = f"max_over_time({SUSPECTS}[$__range:$__interval] @ end())"
    leaks = graph(
        Say(
            "Whose connections look leaked?",
            f"Suspects by application, the {_SHOWN} with most. A healthy application has none, whatever its load.",
            "No connection looks leaked",
        ),
        Query(leaders(SUSPECTS, ever, _SHOWN), NAME),
        links=[_SERIES_LINK],
        stacked=True,
    )
    return Shelf(9, [(full, 8), (grows, 8), (leaks, 8)])


def _lists() -> Shelf:
    servers = table(
        Say(
            "Servers",
            "How full each server is, how its floor grows, when a leak will have filled it, and whose leak grows fastest on it.",
            "No server is watched",
        ),
        [
            Query(FULL),
            Query(USED),
            Query(USABLE),
            Query(SERVER_GROWTH),
            Query(TIME_LEFT),
            Query(f"topk by (server) (1, ({LEAK_GROWTH}) >= 0.5)"),
            Query(UP),
        ],
        [
            Column("server", "Server", links=(_SERVER_LINK,)),
            Column("G", "Read", "bool_yes_no", steps=((None, colours.BAD), (1, colours.GOOD))),
            Column("A", "Full", "percentunit", 0, FILLING, gauge=True),
            Column("B", "Used"),
            Column("C", "Limit"),
            Column("D", "Growth", RATE, 1),
            Column("E", "Full in", "s", 1, URGENT, nothing="not by a leak"),
            Column("application_name", "Application", links=(_APPLICATION_LINK,)),
            Column("usename", "User"),
            Column("F", "Its growth", RATE, 1),
        ],
        "Full",
    )
    applications = table(
        Say(
            "Applications by growth",
            "Connections of each application and how fast their floor rises; the share is of its server's usable slots. "
            "Code: what holds most of them too long, where the application's processes report to this pgleak.",
            "No application is connected",
        ),
        [
            Query(GROWTH),
            Query(SUSPECTS),
            Query(CONNECTIONS),
            Query(f"{CONNECTIONS} / on (server) group_left () {USABLE}"),
            Query(CODE),
        ],
        [
            Column("application_name", "Application", links=(_APPLICATION_LINK,)),
            Column("site", "Code", links=(_CODE_LINK,)),
            Column("server", "Server", links=(_SERVER_LINK,)),
            Column("usename", "User"),
            Column("A", "Growth", RATE, 1, ((None, "text"), (0.5, colours.ATTENTION))),
            Column("B", "Suspects", steps=((None, "text"), (3, colours.ATTENTION), (10, colours.BAD))),
            Column("C", "Connections"),
            Column("D", "Share", "percentunit", 0),
        ],
        "Growth",
    )
    return Shelf(7, [(servers, 12), (applications, 12)])


def _each_server() -> Shelf:
    one = limit(
        graph(
            Say(
                "Who holds the connections of $server?",
                "Connections by application on top of each other, and where ordinary roles are refused (dashed).",
                "Nobody is connected",
            ),
            Query(
                leaders(CONNECTIONS, f"max_over_time({CONNECTIONS}[$__range:$__interval] @ end())", 12),
                NAME,
            ),
            Query(USABLE, "limit"),
            stacked=True,
            links=[_SERIES_LINK],
        )
    )
    one |= {"repeat": "server", "repeatDirection": "h", "maxPerRow": 3}
    return Shelf(9, [(one, 24)], row="Each server")


def variables() -> list[JSON]:
    """Return the variables of the dashboards about servers: job and server."""
    up = metrics.UP.name
    return [
        variable("job", "Job", f"label_values({up}, job)", "The Prometheus jobs that scrape pgleak."),
        variable("server", "Server", f'label_values({up}{{job=~"$job"}}, server)', "Targets in pgleak's settings."),
    ]


RESTARTS = mark(
    "Server started",
    f"1000 * max by (server) ({select(metrics.POSTMASTER_START)})",
    colours.SERVER_STARTED,
    "PostgreSQL started: {{server}}",
)


def board() -> Board:
    """The dashboard."""
    return Board(
        frame.CONNECTIONS,
        f"Which PostgreSQL server fills up, when, and because of whom? Applications are told apart by {PER_APPLICATION}.",
        variables(),
        [_answers(), _curves(), _lists(), watching.refusals(FILLING), watching.watcher(), _each_server()],
        [RESTARTS],
    )
