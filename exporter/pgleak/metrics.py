"""The catalogue: every metric's name, type, labels, unit and help stand here and nowhere else.

Code builds families from these entries; the docs page, the rules, the dashboards and the tests are checked against
them. Naming follows https://prometheus.io/docs/practices/naming/: base units, ``_total`` on counters only.
"""

from __future__ import annotations

from pgleak.spec import Spec

GROUPING = ("datname", "usename", "application_name", "client_addr")
"""Label names that the ``group_by`` setting chooses from, in the order in which they appear."""

_GROUPS = ("datname", "usename", "application_name")

AGE_BUCKETS = (60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0)
"""Upper bounds in seconds of the age histograms; +Inf follows."""


UP = Spec("pgleak_up", "gauge", "1 when the last read of the server succeeded, else 0.", ("server",))
SCRAPE_DURATION = Spec(
    "pgleak_scrape_duration_seconds",
    "gauge",
    "Time spent on the last read of the server.",
    ("server",),
    "seconds",
)
SCRAPE_ERRORS = Spec(
    "pgleak_scrape_errors_total",
    "counter",
    "Reads of the server that failed, by reason; all reasons are present from the start.",
    ("server", "reason"),
    "reads",
)
LAST_SUCCESS = Spec(
    "pgleak_last_success_timestamp_seconds",
    "gauge",
    "When the server was last read with success, as Unix time by the exporter's clock; absent before the first.",
    ("server",),
    "seconds",
)
CONNECTIONS = Spec(
    "pgleak_connections",
    "gauge",
    "Client connections by state; (hidden) where the exporter's role may not see the state.",
    ("server", *_GROUPS, "state"),
    "connections",
)
IDLE_SECONDS = Spec(
    "pgleak_idle_seconds",
    "gaugehistogram",
    "How long each connection that is not active has gone unused, now.",
    ("server", *_GROUPS),
    "seconds",
    AGE_BUCKETS,
)
SESSION_SECONDS = Spec(
    "pgleak_session_seconds",
    "gaugehistogram",
    "How long each connection has existed, now.",
    ("server", *_GROUPS),
    "seconds",
    AGE_BUCKETS,
)
SUSPECTS = Spec(
    "pgleak_suspect_connections",
    "gauge",
    "Connections that look leaked by themselves, each counted under one kind of evidence.",
    ("server", *_GROUPS, "evidence"),
    "connections",
    note=(
        "`stuck_in_transaction`: not active, in a transaction for longer than 1 h; else `never_reused`: used only in its "
        "first 5 s, then idle for longer than 5 min; else `passed_over`: idle for longer than 1 h although the same "
        "application, user, database and client address opened a younger connection since; else `stuck_in_transaction` "
        "again: nothing sent for longer than 15 min, in a transaction. The times are settings. "
        "Absent for ignored applications and where ages are hidden."
    ),
)
OLDEST_IDLE = Spec(
    "pgleak_oldest_idle_seconds",
    "gauge",
    "How long the longest unused connection that is not active has gone unused; 0 when none is.",
    ("server", *_GROUPS),
    "seconds",
)
OLDEST_TRANSACTION = Spec(
    "pgleak_oldest_transaction_seconds",
    "gauge",
    "Age of the oldest open transaction of a client connection; 0 when none is open.",
    ("server", *_GROUPS),
    "seconds",
)
IGNORED = Spec(
    "pgleak_application_ignored",
    "gauge",
    "1 for an application that the settings exempt from judgement (interactive clients); its connections still count.",
    ("server", *_GROUPS),
    note="For rules: `unless on (server, usename, application_name) pgleak_application_ignored`.",
)
USED = Spec(
    "pgleak_used_connections",
    "gauge",
    "Connection slots taken: client connections of every role, the exporter's own included.",
    ("server",),
    "connections",
    note=(
        "No parallel workers, walsenders or background workers: they take no ordinary slot. Without pg_read_all_stats, "
        "parallel workers and logical walsenders cannot be told from clients and are counted."
    ),
)
USABLE = Spec(
    "pgleak_usable_connections",
    "gauge",
    "Where ordinary roles are refused: max_connections less both kinds of reserved slots.",
    ("server",),
    "connections",
)
MAX = Spec("pgleak_max_connections", "gauge", "The server's max_connections.", ("server",), "connections")
RESERVED = Spec(
    "pgleak_reserved_connections",
    "gauge",
    "The server's reserved_connections: slots for roles with pg_use_reserved_connections; 0 before PostgreSQL 16.",
    ("server",),
    "connections",
)
SUPERUSER_RESERVED = Spec(
    "pgleak_superuser_reserved_connections",
    "gauge",
    "The server's superuser_reserved_connections.",
    ("server",),
    "connections",
)
ROLE_LIMIT = Spec(
    "pgleak_role_connection_limit",
    "gauge",
    "CONNECTION LIMIT of a role; only where one is set.",
    ("server", "usename"),
    "connections",
)
DATABASE_LIMIT = Spec(
    "pgleak_database_connection_limit",
    "gauge",
    "CONNECTION LIMIT of a database; only where one is set.",
    ("server", "datname"),
    "connections",
)
SESSIONS = Spec(
    "pgleak_sessions_total",
    "counter",
    "Sessions established since the statistics were reset (PostgreSQL 14 and later).",
    ("server", "datname"),
    "sessions",
)
SESSIONS_ABANDONED = Spec(
    "pgleak_sessions_abandoned_total",
    "counter",
    "Sessions that ended because the client was lost (PostgreSQL 14 and later).",
    ("server", "datname"),
    "sessions",
)
SESSIONS_FATAL = Spec(
    "pgleak_sessions_fatal_total",
    "counter",
    "Sessions that ended by a fatal error (PostgreSQL 14 and later).",
    ("server", "datname"),
    "sessions",
)
SESSIONS_KILLED = Spec(
    "pgleak_sessions_killed_total",
    "counter",
    "Sessions that an operator ended (PostgreSQL 14 and later).",
    ("server", "datname"),
    "sessions",
)
STATS_VISIBLE = Spec(
    "pgleak_stats_visible",
    "gauge",
    "1 when the exporter's role sees other roles' states (pg_read_all_stats, inherited), else 0.",
    ("server",),
)
LOGIN_SUCCESS = Spec(
    "pgleak_login_success",
    "gauge",
    "1 when the canary's last fresh login as an ordinary role succeeded, else 0; only where a canary is configured.",
    ("server",),
)
LOGIN_FAILURES = Spec(
    "pgleak_login_failures_total",
    "counter",
    "Canary logins that failed, by reason; only where a canary is configured.",
    ("server", "reason"),
    "logins",
)
POSTMASTER_START = Spec(
    "pgleak_postmaster_start_timestamp_seconds",
    "gauge",
    "When the server started, as Unix time by the server's clock.",
    ("server",),
    "seconds",
)
_FOLDED = "Ignored applications have places of their own and do not count here. Only while `group_by` has the label."
OVERFLOWED = {
    label: Spec(
        name, "gauge", f"{what} connected now that the cap folded into (other).", ("server",), unit, note=_FOLDED
    )
    for label, name, what, unit in (
        ("application_name", "pgleak_application_names_overflowed", "Applications", "applications"),
        ("datname", "pgleak_databases_overflowed", "Databases", "databases"),
        ("usename", "pgleak_users_overflowed", "Users", "users"),
        ("client_addr", "pgleak_client_addresses_overflowed", "Client addresses", "addresses"),
    )
}
"""By the label that the cap is for."""
COMBINATIONS_OVERFLOWED = Spec(
    "pgleak_label_combinations_overflowed",
    "gauge",
    "Combinations of these labels connected now that were folded into (other), in all of the labels.",
    ("server",),
    "combinations",
    note="Ten times the largest cap are told apart. Ignored applications count here, too.",
)

WEB_CONFIG_OK = Spec(
    "pgleak_web_config_valid",
    "gauge",
    "0 when the web config file changed to something invalid and the last good version is in use, else 1.",
)
BUILD_INFO = Spec(
    "pgleak_build_info",
    "gauge",
    "Always 1; the versions of pgleak and of what it runs on (sqlalchemy is empty where it is not installed).",
    ("version", "python", "sqlalchemy"),
)

SERVER_HALF: tuple[Spec, ...] = (
    UP,
    SCRAPE_DURATION,
    SCRAPE_ERRORS,
    LAST_SUCCESS,
    CONNECTIONS,
    IDLE_SECONDS,
    SUSPECTS,
    SESSION_SECONDS,
    OLDEST_IDLE,
    OLDEST_TRANSACTION,
    IGNORED,
    USED,
    USABLE,
    MAX,
    RESERVED,
    SUPERUSER_RESERVED,
    ROLE_LIMIT,
    DATABASE_LIMIT,
    SESSIONS,
    SESSIONS_ABANDONED,
    SESSIONS_FATAL,
    SESSIONS_KILLED,
    STATS_VISIBLE,
    LOGIN_SUCCESS,
    LOGIN_FAILURES,
    POSTMASTER_START,
    *OVERFLOWED.values(),
    COMBINATIONS_OVERFLOWED,
    WEB_CONFIG_OK,
    BUILD_INFO,
)
"""What ``pgleak serve`` exposes, in output order."""
