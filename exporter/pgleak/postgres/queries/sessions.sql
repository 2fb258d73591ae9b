-- Appended to server.sql with UNION ALL on PostgreSQL 14 and later, which count sessions per database.
--
-- Only these columns of the view, and no to_jsonb() of the row: its numbackends walks all backends for each database.
SELECT counter.kind, statistics.datname::text, counter.value
FROM pg_catalog.pg_stat_database AS statistics
CROSS JOIN LATERAL (
    VALUES
        ('sessions', statistics.sessions::float8),
        ('sessions_abandoned', statistics.sessions_abandoned::float8),
        ('sessions_fatal', statistics.sessions_fatal::float8),
        ('sessions_killed', statistics.sessions_killed::float8)
) AS counter (kind, value)
WHERE statistics.datname IS NOT NULL
