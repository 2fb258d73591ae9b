"""One SQLAlchemy pool, or all: what is out, for how long, and which code took it."""

from __future__ import annotations

from boards import colours, frame, work
from boards.connections import PLAIN, SOME_IS_BAD
from boards.frame import Board, Shelf, link, process_started, variable
from boards.panels import JSON, Column, Query, Say, Well, ages, graph, limit, stat, table
from boards.promql import gained, select
from pgleak.pool import metrics as pool

_SITES = 10  # places in the code on one graph

USED = select(pool.CONNECTIONS, 'state="used"')
FULL = f"sum by (pool) ({USED}) / (sum by (pool) ({select(pool.CONNECTIONS_MAX)}) < +Inf)"
TOO_LONG = ((None, colours.GOOD), (1, colours.ATTENTION), (3, colours.BAD))


def _answers() -> Shelf:
    fullest = stat(
        Say(
            "Fullest pool",
            "Of the connections that it may open, those that somebody has checked out; over all its processes.",
            "No pool has a limit",
            "percentunit",
            0,
        ),
        Query(f"topk(1, {FULL})", "{{pool}}"),
        ((None, colours.GOOD), (0.8, colours.ATTENTION), (1, colours.BAD)),
        named=True,
    )
    overdue = stat(
        Say(
            "Connections held too long",
            "Connections held beyond what is in order for the code that took them, and the code that holds most.",
            "No pool reports",
        ),
        Query(f"topk(1, sum by (site) ({select(pool.OVERDUE)}) > 0)", "{{site}}"),
        TOO_LONG,
        named=True,
        well=Well(select(pool.CONNECTIONS), "None", "of all that are held"),
    )
    waiting = stat(
        Say("Waiting requests", "Threads or tasks that wait for a connection now.", "No pool reports"),
        Query(f"sum({select(pool.PENDING)})", "waiting"),
        ((None, colours.GOOD), (1, colours.ATTENTION), (10, colours.BAD)),
    )
    timeouts = stat(
        Say(
            "Timeouts",
            "Requests for a connection that timed out, in the time shown.",
            "No pool reports",
            decimals=0,
        ),
        Query(f"sum(increase({select(pool.TIMEOUTS)}[$__range]))", "timeouts"),
        SOME_IS_BAD,
    )
    collected = stat(
        Say(
            "Collected checkouts",
            "Checkouts that nobody returned and the garbage collector found, in the time shown: leaks that were lucky.",
            "No pool reports",
            decimals=0,
        ),
        Query(f"sum({gained(pool.RETURNED_BY_GC)}) or 0 * sum({select(pool.CONNECTIONS)})", "collected"),
        SOME_IS_BAD,
    )
    orphans = stat(
        Say(
            "Orphaned connections",
            "Open connections that no pool counts any more, because dispose() came while they were out.",
            "No pool reports",
        ),
        Query(f"sum({select(pool.ORPHANED)})", "orphaned"),
        SOME_IS_BAD,
    )
    processes = stat(
        Say("Processes", "Processes that report their pools.", "None reports"),
        Query(f"sum({select(pool.PROCESSES)})", "processes"),
        PLAIN,
    )
    return Shelf(
        4,
        [(fullest, 4), (overdue, 6), (waiting, 3), (timeouts, 3), (collected, 3), (orphans, 3), (processes, 2)],
    )


def _now() -> Shelf:
    full = limit(
        graph(
            Say(
                "What do the pools hold?",
                "Connections held and idle on top of each other, who waits, and the most that the pools open together (dashed; "
                "none where one of them is unlimited).",
                "No pool reports",
            ),
            *(
                Query(f"sum({select(pool.CONNECTIONS, matcher)})", state)
                for state in colours.POOL_STATES
                for matcher in [f'state="{state}"']
            ),
            Query(f"sum({select(pool.PENDING)})", "waiting"),
            Query(f"sum({select(pool.CONNECTIONS_MAX)}) < +Inf", "limit"),
            colours={**colours.POOL_STATES, "waiting": colours.WAITING},
            dashed=["waiting"],
            stacked=True,
        )
    )
    out = ages(
        Say(
            "How long has what is out now been out?",
            "Ages of the connections that are checked out at each moment. A histogram of finished checkouts would never "
            "show a leak: it is recorded at the return.",
            "Nothing is checked out",
            "s",
        ),
        Query(f"sum by (le) ({select(pool.HELD, suffix='_bucket')})"),
    )
    return Shelf(9, [(full, 12), (out, 12)])


def _places() -> Shelf:
    by = "pool, site"
    dead = select(pool.HELD_CONNECTIONS, 'owner="dead"')
    this = link(
        "This place alone",
        frame.POOL,
        pool="${__data.fields.Pool:percentencode}",
        site="${__data.fields.Place:percentencode}",
    )
    overdue = f"sum by ({by}) ({select(pool.OVERDUE)})"
    # One name for each pool: several would make several rows.
    names = f"topk by (pool) (1, group by (pool, application_name) ({select(pool.SERVER_CONNECTIONS_MAX)}))"
    named = f"{overdue} * on (pool) group_left (application_name) {names}"
    outside = link(
        "The application as the server sees it",
        frame.APPLICATION,
        same_jobs=False,
        application="${__data.fields.Application:percentencode}",
    )
    code = table(
        Say(
            "Which code holds connections too long?",
            "By the place in the code that checked them out, module:function; the line is in the application's log. Owner "
            "gone: the thread or task that took it has ended.",
            "No code has held a connection too long",
        ),
        [
            Query(f"{named} or on ({by}) {overdue}"),
            Query(f"sum by ({by}) ({select(pool.HELD_CONNECTIONS)}) and on ({by}) {select(pool.OVERDUE)}"),
            Query(f"sum by ({by}) ({dead}) and on ({by}) {select(pool.OVERDUE)}"),
            Query(f"sum by ({by}) ({gained(pool.SUSPECTS)})"),
            Query(f"sum by ({by}) ({gained(pool.SUSPECTS_RETURNED)})"),
        ],
        [
            Column("site", "Place", links=(this,)),
            Column("pool", "Pool"),
            Column("application_name", "Application", links=(outside,)),
            Column("A", "Overdue", steps=TOO_LONG, nothing="0"),
            Column("B", "Held", nothing="0"),
            Column("C", "Owner gone", nothing="0"),
            Column("D", "Suspected", decimals=0, nothing="0"),
            Column("E", "Returned late", decimals=0, nothing="0"),
        ],
        "Overdue",
    )  # fmt: skip
    since = graph(
        Say(
            "Since when?",
            "Overdue connections by the place in the code, on top of each other.",
            "No connection is overdue",
        ),
        Query(f"topk({_SITES}, sum by (site) ({select(pool.OVERDUE)}))", "{{site}}"),
        stacked=True,
    )
    return Shelf(8, [(code, 12), (since, 12)])


def _each() -> Shelf:
    full = limit(
        graph(
            Say(
                "Which pool is used up?",
                "Of the connections that each pool may open, those that are held. At the limit (dashed) the next one waits. "
                f"The {_SITES} fullest pools; none that is unlimited.",
                "No pool has a limit",
                "percentunit",
                0,
            ),
            Query(f"topk({_SITES}, {FULL})", "{{pool}}"),
            Query(f"group({select(pool.CONNECTIONS_MAX)} < +Inf)", "limit"),
        )
    )
    waits = graph(
        Say(
            "Who waits for a connection?",
            "Threads or tasks that wait now, and those that waited in vain in each interval.",
            "Nobody",
        ),
        Query(f"sum by (pool) ({select(pool.PENDING)}) > 0", "waiting ({{pool}})"),
        Query(f"sum by (pool) (increase({select(pool.TIMEOUTS)}[$__rate_interval])) > 0", "in vain ({{pool}})"),
        bars=True,
    )
    return Shelf(8, [(full, 12), (waits, 12)], row="Each pool")


def _losses() -> Shelf:
    holders = graph(
        Say(
            "Which code holds connections?",
            f"Connections held now, overdue or not, by the place in the code; the {_SITES} that hold most.",
            "Nothing is checked out",
        ),
        Query(f"topk({_SITES}, sum by (site) ({select(pool.HELD_CONNECTIONS)}))", "{{site}}"),
        stacked=True,
    )
    collected = graph(
        Say(
            "What did the collector return?",
            "Checkouts that nobody returned and the garbage collector found, in each interval.",
            "Nothing",
            decimals=0,
        ),
        Query(
            f"sum by (pool, site) ({gained(pool.RETURNED_BY_GC, window='$__rate_interval')}) > 0",
            "{{site}} ({{pool}})",
        ),
        bars=True,
    )
    lost = graph(
        Say(
            "What does no pool count?",
            "Open connections outside of their pool: orphaned by dispose(), or detached. They take slots of the server.",
            "No pool reports",
        ),
        Query(f"sum by (pool) ({select(pool.ORPHANED)})", "orphaned ({{pool}})"),
        Query(f"sum by (pool) ({select(pool.DETACHED)})", "detached ({{pool}})"),
        colours={"/^orphaned /": colours.ORPHANED, "/^detached /": colours.DETACHED},
        stacked=True,
    )
    return Shelf(8, [(holders, 8), (collected, 8), (lost, 8)], row="Holders and losses")


def _variables() -> list[JSON]:
    name = pool.CONNECTIONS.name
    by_pool = '{job=~"$job", pool=~"$pool"}'
    return [
        variable("job", "Job", f"label_values({name}, job)", "The Prometheus jobs that scrape the pools."),
        variable(
            "pool", "Pool", f'label_values({name}{{job=~"$job"}}, pool)', "The names given to pgleak.instrument()."
        ),
        variable(
            "site",
            "Place",
            f"label_values({pool.HELD_CONNECTIONS.name}{by_pool}, site)",
            "The code that checked a connection out, module:function.",
        ),
    ]


def board() -> Board:
    """The dashboard."""
    return Board(
        frame.POOL,
        "SQLAlchemy pools from inside the application: what is out, for how long, and which code took it.",
        _variables(),
        [_answers(), _now(), _places(), _each(), _losses(), *work.shelves()],
        [process_started(select(pool.PROCESSES))],
    )
