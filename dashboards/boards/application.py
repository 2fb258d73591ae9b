"""One application: what its connections do, and what speaks for a leak."""

from __future__ import annotations

from prometheus_client.utils import floatToGoString

from boards import colours, connections, frame, servers
from boards.connections import PLAIN, RESTARTS, URGENT
from boards.frame import Board, Shelf, link, mark, process_started, variable
from boards.panels import Column, Query, Say, Well, ages, graph, limit, stat, table
from boards.promql import HOUR, RATE, growth, once, recorded, select
from pgleak import metrics
from pgleak.holders import metrics as holders
from pgleak.pool import metrics as pool

_NAME = 'application_name="$application"'

BY_SERVER = once("server", select(metrics.CONNECTIONS, _NAME))
CONNECTIONS = f"sum({BY_SERVER})"
SUSPECTS = f"sum({once('server', select(metrics.SUSPECTS, _NAME))})"
_RECORDED = recorded("application:pgleak_connections:growth_per_hour", _NAME)
# Of what is still there: a slope over six hours outlives the application.
GROWTH = f"(sum(last_over_time({_RECORDED}[15m])) or {HOUR} * {growth(CONNECTIONS)}) and on () {CONNECTIONS}"


def _by(label: str, vector: str) -> str:
    return f"sum by ({label}) ({once(f'server, {label}', vector)})"


def _record(recording: str, vector: str) -> str:
    """Return the highest value of the week that ended a day ago; by the rules' hourly values where they are loaded."""
    hourly = recorded(recording, _NAME)
    return f"sum(max_over_time({hourly}[7d] offset 1d)) or max_over_time({vector}[7d:1h] offset 1d)"


def _answers() -> Shelf:
    now = stat(
        Say(
            "Connections",
            "Connections of the application, on the chosen servers, over all databases and users.",
            "None",
        ),
        Query(CONNECTIONS, "connections"),
        PLAIN,
    )
    grows = stat(
        Say(
            "How fast does it grow?",
            "Rise of the floor of its connections over the last hours, in connections per hour.",
            "Not yet known",
            RATE,
            1,
        ),
        Query(GROWTH, "growth"),
        ((None, colours.GOOD), (0.5, colours.ATTENTION)),
    )
    leaked = stat(
        Say(
            "How many look leaked?",
            "Suspects: stuck in a transaction, never used again after their first seconds, or passed over by their own pool.",
            "Ages are not visible, or the application is exempt",
        ),
        Query(SUSPECTS, "suspects"),
        ((None, colours.GOOD), (3, colours.ATTENTION), (10, colours.BAD)),
    )
    share = stat(
        Say(
            "Share of the server",
            "Of the slots that ordinary roles may use, the part that this application holds; the greatest of its servers.",
            "None",
            "percentunit",
            0,
        ),
        Query(f"max({BY_SERVER} / {servers.USABLE})", "share"),
        PLAIN,  # a server may have one application alone
    )
    oldest = stat(
        Say(
            "Longest time unused",
            "How long the longest unused connection that is not active has gone unused.",
            "Ages are not visible",
            "s",
            1,
        ),
        Query(f"max({select(metrics.OLDEST_IDLE, _NAME)})", "unused"),
        PLAIN,
    )
    full = stat(
        Say(
            "When is its server full?",
            "Time until the first of the application's servers refuses ordinary roles, at the growth of its leaks.",
            "Not known",
            "s",
            1,
        ),
        Query(f"min({servers.TIME_LEFT} and on (server) {BY_SERVER})", "full in"),
        URGENT,
        well=Well(SUSPECTS, "Not by a leak within 30 days", "of its servers"),
    )
    return Shelf(4, [(panel, 4) for panel in (now, grows, leaked, share, oldest, full)])


def _now() -> Shelf:
    states = graph(
        Say(
            "What are its connections doing?",
            "Connections by state, on top of each other. Idle in transaction that does not come down is a session that "
            "nobody closed.",
            "The application is not connected",
        ),
        Query(_by("state", select(metrics.CONNECTIONS, _NAME)), "{{state}}"),
        colours=colours.STATES,
        stacked=True,
    )
    record = _record("application:pgleak_suspect_connections:max1h", SUSPECTS)
    evidence = graph(
        Say(
            "What speaks for a leak?",
            "Suspects by kind of evidence, each connection once, and their record: the most at any time in the week that "
            "ended a day ago. Above the record is what the alert looks for.",
            "Nothing",
        ),
        Query(_by("evidence", select(metrics.SUSPECTS, _NAME)), "{{evidence}}"),
        Query(record, "record of the week"),
        colours={**colours.EVIDENCE, "record of the week": colours.PAST},
        dashed=["record of the week"],
        stacked=True,
    )
    return Shelf(9, [(states, 12), (evidence, 12)])


def _over_time() -> Shelf:
    # The rules record it every quarter of an hour, which is longer than Prometheus looks back.
    hourly = f"sum(last_over_time({recorded('application:pgleak_connections:min1h', _NAME)}[30m]))"
    floor = f"{hourly} or min_over_time({CONNECTIONS}[1h:1m])"
    record = f"max_over_time({CONNECTIONS}[7d:1h] offset 1d)"
    rises = graph(
        Say(
            "Does its floor rise?",
            "Connections now, the fewest of the last hour, and the record: the most in the week that ended a day ago. "
            "Under load the line leaves the floor and comes back; in a leak the floor goes along.",
            "The application is not connected",
        ),
        Query(CONNECTIONS, "now"),
        Query(floor, "floor of the hour"),
        Query(record, "record of the week"),
        colours={"now": colours.USED, "floor of the hour": colours.FLOOR, "record of the week": colours.PAST},
        dashed=["record of the week"],
    )
    unused = ages(
        Say(
            "How long have its connections gone unused?",
            "Ages of the connections that are not active, now. A healthy pool stays at the bottom; what is leaked moves up "
            "and never comes down.",
            "Ages are not visible",
            "s",
        ),
        Query(_by("le", select(metrics.IDLE_SECONDS, _NAME, suffix="_bucket"))),
    )
    return Shelf(9, [(rises, 12), (unused, 12)])


def _inside() -> Shelf:
    silent = "None of its processes reports to this pgleak"
    who = graph(
        Say(
            "Who holds its connections?",
            "The server's connections by what the application's processes say of them. Overdue or with a dead owner: code holds "
            "them too long. Orphaned: no pool counts them any more. Unclaimed: no process knows them.",
            silent,
        ),
        Query(_by("holder", select(holders.BACKENDS, _NAME)), "{{holder}}"),
        colours=colours.HOLDERS,
        stacked=True,
    )
    code = graph(
        Say(
            "Which code holds them too long?",
            "Connections that are held for too long, by the place in the code that took them, on top of each other.",
            "No connection is held too long, or none of its processes reports",
        ),
        Query(f"{_by('site', select(holders.OVERDUE, _NAME))} > 0", "{{site}}"),
        stacked=True,
        links=[
            link("This place in the code", frame.POOL, same_jobs=False, site="${__field.labels.site:percentencode}")
        ],
    )
    return Shelf(8, [(who, 12), (code, 12)], row="Inside the application")


def _elsewhere() -> list[Shelf]:
    share = limit(
        graph(
            Say(
                "How much of its server does it hold?",
                "Of the connections that ordinary roles may open, the application's part and everybody's together. At the "
                "limit (dashed) they are refused.",
                "The application is not connected",
                "percentunit",
                0,
            ),
            Query(f"{BY_SERVER} / {servers.USABLE}", "this application on {{server}}"),
            Query(f"{servers.FULL} and on (server) {BY_SERVER}", "everybody on {{server}}"),
            Query(f"group({servers.USABLE} and on (server) {BY_SERVER})", "limit"),
            colours={"/^this application /": colours.USED, "/^everybody /": colours.EVERYBODY},
        )
    )
    sessions = ages(
        Say(
            "How old are its connections?",
            "Time since each connection was opened. After a deploy all are young; pools that recycle keep them so.",
            "Ages are not visible",
            "s",
        ),
        Query(_by("le", select(metrics.SESSION_SECONDS, _NAME, suffix="_bucket"))),
    )
    oldest = graph(
        Say(
            "What has gone on for longest?",
            "The oldest open transaction, and the longest unused connection. A line that rises like a clock is one that "
            "nobody touches.",
            "Ages are not visible",
            "s",
        ),
        Query(f"max({select(metrics.OLDEST_TRANSACTION, _NAME)})", "oldest transaction"),
        Query(f"max({select(metrics.OLDEST_IDLE, _NAME)})", "longest unused"),
        colours={"oldest transaction": colours.IN_TRANSACTION, "longest unused": colours.IDLE},
    )
    by = "server, datname, usename"
    where = table(
        Say("Where is it connected?", "By server, database and user.", "The application is not connected"),
        [
            Query(once(by, select(metrics.CONNECTIONS, _NAME))),
            Query(once(by, select(metrics.SUSPECTS, _NAME))),
            Query(f"max by ({by}) ({select(metrics.OLDEST_TRANSACTION, _NAME)})"),
            Query(f"max by ({by}) ({select(metrics.OLDEST_IDLE, _NAME)})"),
        ],
        [
            Column("server", "Server", links=(link("Its server", frame.CONNECTIONS, server="${__data.fields.Server:percentencode}"),)),
            Column("datname", "Database"),
            Column("usename", "User"),
            Column("A", "Connections"),
            Column("B", "Suspects", steps=((None, "text"), (3, colours.ATTENTION), (10, colours.BAD))),
            Column("C", "Oldest transaction", "s", 0),
            Column("D", "Longest unused", "s", 0),
        ],
        "Connections",
    )  # fmt: skip
    return [Shelf(9, [(share, 12), (sessions, 12)], row="On its servers"), Shelf(8, [(oldest, 12), (where, 12)])]


def _renewed() -> str:
    """Return the moments (milliseconds) at which most connections were new and ten minutes before were not."""
    minute = f'le="{floatToGoString(metrics.AGE_BUCKETS[0])}"'

    def share(at: str) -> str:
        young = select(metrics.SESSION_SECONDS, _NAME, minute, suffix="_bucket")
        every = select(metrics.SESSION_SECONDS, _NAME, suffix="_gcount")
        return f"sum({once('server', young + at)}) / sum({once('server', every + at)})"

    return f"vector(1000 * time()) and on () ({share('')} > 0.5) and on () ({share(' offset 10m')} < 0.5)"


def board() -> Board:
    """The dashboard."""
    selector = select(metrics.CONNECTIONS)
    chosen = variable(
        "application",
        "Application",
        f"label_values({selector}, application_name)",
        "The application_name that the server shows.",
        many=False,
    )
    renewed = mark(
        "Deployed",
        _renewed(),
        colours.STARTED,
        "Most connections are new: a deploy, a restart, or a pool that recycled",
    )
    of_pools = f'{pool.SERVER_CONNECTIONS_MAX.name}{{job=~"$job", {_NAME}}}'
    return Board(
        frame.APPLICATION,
        "One application: what its connections do, how long they go unused, and what speaks for a leak.",
        [*connections.variables(), chosen],
        [_answers(), _now(), _over_time(), _inside(), *_elsewhere()],
        [RESTARTS, renewed, process_started(of_pools)],
    )  # fmt: skip
