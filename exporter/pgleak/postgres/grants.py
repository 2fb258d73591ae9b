"""The SQL for a role that can watch and nothing else, for one version of PostgreSQL.

What managed services allow is from their documentation of roles and settings: rds_superuser and parameter groups (Amazon),
azure_pg_admin and server parameters (Microsoft), cloudsqlsuperuser and database flags (Google).
"""

from __future__ import annotations

FIRST_WITH_RESERVED = 16
"""The first version with ``reserved_connections`` and the role ``pg_use_reserved_connections``."""

OLDEST_SUPPORTED = 13


def grants(version: int, role: str = "pgleak", database: str = "postgres", canary: str = "pgleak_canary") -> str:
    r"""Return SQL, to be run by a superuser or a managed service's administrator, that makes the exporter's role and the canary's.

    It changes no setting of the server: what it suggests there is a comment.
    ``version`` is the major version. No password is in the text: psql's ``\password`` sets it without one ever being
    in a log or a history file. Raises ``ValueError`` for a version before 13.
    """
    if version < OLDEST_SUPPORTED:
        raise ValueError(f"PostgreSQL {version} is not supported; the oldest is {OLDEST_SUPPORTED}")
    watcher, prober, place = _quoted(role), _quoted(canary), _quoted(database)
    inherit = " WITH INHERIT TRUE" if version >= FIRST_WITH_RESERVED else ""
    lines = [
        f"-- The role that pgleak logs in as, for PostgreSQL {version}. Run in psql as a superuser; on a managed service, which",
        "-- has none for you, as its administrator: a member of rds_superuser (Amazon RDS, Aurora), azure_pg_admin (Azure) or",
        "-- cloudsqlsuperuser (Google Cloud SQL).",
        "-- It sees which sessions exist and in which state, no table. One slot is held, two are to spare for restarts.",
        f"CREATE ROLE {watcher} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 3;",
        f"GRANT CONNECT ON DATABASE {place} TO {watcher};",
        f"GRANT pg_read_all_stats TO {watcher}{inherit};",
    ]
    if version >= FIRST_WITH_RESERVED:
        lines += [
            "-- So that pgleak can log in when every ordinary slot is taken:",
            f"GRANT pg_use_reserved_connections TO {watcher}{inherit};",
            "-- It takes effect with at least one reserved slot, which is a setting of the server and not made here: from its",
            "-- next restart on, ordinary roles have two connections fewer, and pgleak gets in. To have that, as a superuser:",
            "--     ALTER SYSTEM SET reserved_connections = 2;",
            "--     SELECT pg_reload_conf();",
            "-- Until the restart nothing changes; `pgleak check` tells, and so does pending_restart in pg_settings. Managed",
            "-- services refuse ALTER SYSTEM: where they offer the setting, it is in the parameter group (Amazon), the server",
            "-- parameters (Azure) or the database flags (Google).",
        ]
    else:
        lines += [
            f"-- PostgreSQL {version} has no reserved slots for roles that are not superusers (16 and later do). When the",
            "-- server is full, pgleak goes on over the connection that it holds, but one that is started or cut off then",
            "-- has to wait for a free slot, and says so (reason slots_exhausted). Do not make it a superuser for that: it",
            "-- would take the slots that you need yourself in that hour.",
        ]
    lines += [
        "",
        "-- Optional: an ordinary role for the canary (`canary:` in the settings), which proves that logins still work.",
        f"CREATE ROLE {prober} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 2;",
        f"GRANT CONNECT ON DATABASE {place} TO {prober};",
        "",
        "-- Last, because psql asks for these two at its terminal: without one, each would read the lines that follow it.",
        f"\\password {watcher}",
        f"\\password {prober}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
