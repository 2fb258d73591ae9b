"""The in-process half's part of the catalogue. The names map to OpenTelemetry's `db.client.connection.*`."""

from __future__ import annotations

from pgleak.pool.snapshot import CREATE_BOUNDS, HELD_BOUNDS, USE_BOUNDS
from pgleak.spec import Spec

_POOL = ("pool",)
_SITE = ("pool", "site")

CONNECTIONS = Spec(
    "sqlalchemy_pool_connections",
    "gauge",
    "Connections that belong to the pool, held by somebody (used) or not (idle).",
    ("pool", "state"),
    "connections",
    note="From what was seen to be checked out and returned, so that empty records do not count, unlike in `checkedin()`.",
)
CONNECTIONS_MAX = Spec(
    "sqlalchemy_pool_connections_max",
    "gauge",
    "The most connections that the pool opens at once, over all its engines; +Inf where it is unlimited.",
    _POOL,
    "connections",
)
SERVER_CONNECTIONS_MAX = Spec(
    "sqlalchemy_pool_server_connections_max",
    "gauge",
    "The same, by where the pool connects and the application_name that the server shows for it.",
    ("pool", "address", "application_name"),
    "connections",
    note=(
        "For rules that relate pools to servers. `address` is `host:port` as the application writes it; `application_name` "
        "is empty before the first connection."
    ),
)
PENDING = Spec(
    "sqlalchemy_pool_pending_requests", "gauge", "Threads or tasks that wait for a connection now.", _POOL, "requests"
)
CHECKOUTS = Spec("sqlalchemy_pool_checkouts_total", "counter", "Connections handed out.", _POOL, "checkouts")
OPENED = Spec("sqlalchemy_pool_connections_opened_total", "counter", "Connections opened.", _POOL, "connections")
CLOSED = Spec(
    "sqlalchemy_pool_connections_closed_total",
    "counter",
    "Connections closed, by reason; all reasons are present from the start.",
    ("pool", "reason"),
    "connections",
    note=(
        "`returned`: the pool was full, or keeps none; `recycled`: too old, or the pool was invalidated; `invalidated`, "
        "`soft_invalidated`: after an error, or on request; `disposed`: `dispose()`; `detached`: closed by whoever detached "
        "it; `evicted`: SingletonThreadPool had too many; `collected`: the garbage collector found it unclosed."
    ),
)
TIMEOUTS = Spec(
    "sqlalchemy_pool_timeouts_total", "counter", "Requests for a connection that waited in vain.", _POOL, "requests"
)
WAIT = Spec(
    "sqlalchemy_pool_wait_seconds_total",
    "counter",
    "Time spent until a connection was handed out or refused, opening new ones included.",
    _POOL,
    "seconds",
)
USE = Spec(
    "sqlalchemy_pool_use_seconds",
    "histogram",
    "How long connections were held, recorded when they come back; what never comes back is in held_seconds.",
    _POOL,
    "seconds",
    USE_BOUNDS,
)
CREATE = Spec(
    "sqlalchemy_pool_create_seconds",
    "histogram",
    "How long it took to open a connection.",
    _POOL,
    "seconds",
    CREATE_BOUNDS,
)
HELD = Spec(
    "sqlalchemy_pool_held_seconds",
    "gaugehistogram",
    "How long each connection that is held now has been held.",
    _POOL,
    "seconds",
    HELD_BOUNDS,
)
OLDEST_CHECKOUT = Spec(
    "sqlalchemy_pool_oldest_checkout_seconds",
    "gauge",
    "How long the longest held connection has been held; 0 when none is.",
    _POOL,
    "seconds",
)
HELD_CONNECTIONS = Spec(
    "sqlalchemy_pool_held_connections",
    "gauge",
    "Connections held now, by the code that checked them out and whether its thread or task still lives.",
    ("pool", "site", "owner"),
    "connections",
    note="The 20 sites that hold most; the rest is `(other)`. `site` is `module:function`; `owner` alive, dead or unknown.",
)
OVERDUE = Spec(
    "sqlalchemy_pool_overdue_connections",
    "gauge",
    "Connections held beyond what is in order for the code that checked them out: leak suspects.",
    _SITE,
    "connections",
)
SUSPECTS = Spec("sqlalchemy_pool_leak_suspects_total", "counter", "Checkouts that became suspects.", _SITE, "checkouts")
SUSPECTS_RETURNED = Spec(
    "sqlalchemy_pool_leak_suspects_returned_total",
    "counter",
    "Suspects that were returned by their holder after all; over leak_suspects_total, the rate of false alarms.",
    _SITE,
    "checkouts",
)
RETURNED_BY_GC = Spec(
    "sqlalchemy_pool_returned_by_gc_total",
    "counter",
    "Checkouts that nobody returned and the garbage collector found: each is a leak that was lucky.",
    _SITE,
    "checkouts",
)
ORPHANED = Spec(
    "sqlalchemy_pool_orphaned_connections",
    "gauge",
    "Open connections that no pool counts any more, because dispose() came while they were out.",
    _POOL,
    "connections",
)
DETACHED = Spec(
    "sqlalchemy_pool_detached_connections",
    "gauge",
    "Open connections that were detached from the pool.",
    _POOL,
    "connections",
)
ENGINES = Spec(
    "sqlalchemy_pool_engines",
    "gauge",
    "Engines that exist under this name; growth means one per request or per task.",
    _POOL,
    "engines",
)
UNUSED_ENGINES = Spec(
    "sqlalchemy_pool_unused_engines",
    "gauge",
    "Engines whose connections only the call that made them used, by the code that made them: leak suspects.",
    _SITE,
    "engines",
    note=(
        "Those of which a process has three or more that one place made for the same address, database, role and options, and "
        "none that is come back to. The 20 sites that made most; the rest is `(other)`."
    ),
)
PROCESSES = Spec("sqlalchemy_pool_processes", "gauge", "Processes that report here.", (), "processes")
ERRORS = Spec(
    "sqlalchemy_pool_instrumentation_errors_total",
    "counter",
    "Mistakes of pgleak itself that were kept from the application; anything but 0 is a bug to report.",
    (),
    "errors",
)

IN_PROCESS_HALF: tuple[Spec, ...] = (
    CONNECTIONS,
    CONNECTIONS_MAX,
    SERVER_CONNECTIONS_MAX,
    PENDING,
    CHECKOUTS,
    OPENED,
    CLOSED,
    TIMEOUTS,
    WAIT,
    USE,
    CREATE,
    HELD,
    OLDEST_CHECKOUT,
    HELD_CONNECTIONS,
    OVERDUE,
    SUSPECTS,
    SUSPECTS_RETURNED,
    RETURNED_BY_GC,
    ORPHANED,
    DETACHED,
    ENGINES,
    UNUSED_ENGINES,
    PROCESSES,
    ERRORS,
)
"""What an instrumented application exposes, in output order."""

OPENTELEMETRY: tuple[tuple[str, str], ...] = (
    ("db.client.connection.count", "sqlalchemy_pool_connections"),
    ("db.client.connection.max", "sqlalchemy_pool_connections_max"),
    ("db.client.connection.pending_requests", "sqlalchemy_pool_pending_requests"),
    ("db.client.connection.timeouts", "sqlalchemy_pool_timeouts_total"),
    ("db.client.connection.create_time", "sqlalchemy_pool_create_seconds"),
    ("db.client.connection.wait_time", "sqlalchemy_pool_wait_seconds_total"),
    ("db.client.connection.use_time", "sqlalchemy_pool_use_seconds"),
)
"""OpenTelemetry's semantic convention, and the metric here that says the same; `db.client.connection.pool.name` is `pool`."""
