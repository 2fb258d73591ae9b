-- Limits, facts and counters of the server as (kind, name, value): cheap, and the same shape on every version.
--
-- pg_has_role(..., 'USAGE') and not 'MEMBER': from PostgreSQL 15 on, a NOINHERIT member is blind all the same. Before, the
-- server itself asked for membership alone.
SELECT 'setting' AS kind, setting AS name, current_setting(setting, true)::float8 AS value
FROM unnest(ARRAY['max_connections', 'superuser_reserved_connections', 'reserved_connections']) AS setting
UNION ALL
SELECT 'fact', 'postmaster_start', date_part('epoch', pg_catalog.pg_postmaster_start_time())
UNION ALL
SELECT 'fact', 'superuser', (current_setting('is_superuser') = 'on')::int::float8
UNION ALL
SELECT 'member', rolname::text, pg_catalog.pg_has_role(
    oid, CASE WHEN current_setting('server_version_num')::int < 150000 THEN 'MEMBER' ELSE 'USAGE' END
)::int::float8
FROM pg_catalog.pg_roles
WHERE rolname IN ('pg_read_all_stats', 'pg_use_reserved_connections')
UNION ALL
SELECT 'role_limit', rolname::text, rolconnlimit::float8
FROM pg_catalog.pg_roles
WHERE rolconnlimit >= 0 AND rolcanlogin
UNION ALL
SELECT 'database_limit', datname::text, datconnlimit::float8
FROM pg_catalog.pg_database
WHERE datconnlimit >= 0 AND datallowconn
