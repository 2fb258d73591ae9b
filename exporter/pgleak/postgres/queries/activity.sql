-- Every client connection of the server, packed per application and state: one statement, one moment.
--
-- pg_stat_get_activity() is what the view pg_stat_activity reads; the view's joins to databases and roles cost as much
-- again, so names are looked up after grouping, when few rows are left. Times travel as the server has them, eight bytes
-- each (microseconds since 2000, as in the binary protocol): subtracting, bucketing and comparing there would double the
-- cost of the read. The times and process ids of one row are aligned; infinity stands for NULL, and no transaction_start
-- at all says that none of the row's connections is in a transaction.
--
-- A role without pg_read_all_stats gets NULL for backend_type and all times; what it can still tell is which session has
-- a database and a user. In that mode a parallel worker or a logical walsender cannot be told from a client.
SELECT
    coalesce(database.datname::text, '') AS datname,
    CASE WHEN usesysid IS NULL THEN '' ELSE pg_catalog.pg_get_userbyid(usesysid)::text END AS usename,
    application_name,
    host(client_addr) AS client_addr,
    state,
    pg_catalog.timestamptz_send(statement_timestamp()) AS now,
    session_start,
    state_change,
    transaction_start,
    pids
FROM (
    SELECT
        datid,
        usesysid,
        application_name COLLATE "C" AS application_name,
        client_addr,
        CASE WHEN backend_type IS NULL THEN '(hidden)' ELSE coalesce(state, '(unknown)') END COLLATE "C" AS state,
        string_agg(pg_catalog.timestamptz_send(coalesce(backend_start, 'infinity')), '') AS session_start,
        string_agg(pg_catalog.timestamptz_send(coalesce(state_change, 'infinity')), '') AS state_change,
        string_agg(pg_catalog.timestamptz_send(xact_start), '') AS transaction_start,
        array_agg(pid)::text AS pids
    FROM pg_catalog.pg_stat_get_activity(NULL)
    WHERE backend_type = 'client backend'
       OR (backend_type IS NULL AND datid IS NOT NULL AND usesysid IS NOT NULL)
    GROUP BY 1, 2, 3, 4, 5, xact_start IS NULL
) AS packed
LEFT JOIN pg_catalog.pg_database AS database ON database.oid = packed.datid
