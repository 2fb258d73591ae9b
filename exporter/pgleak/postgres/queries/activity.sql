-- Every client connection of the server, packed per application and state: one statement, one moment.
--
-- pg_stat_get_activity() is what the view pg_stat_activity reads; the view's joins to databases and roles cost as much
-- again, so names are looked up after grouping, when few rows are left. Ages travel as arrays of milliseconds: packing
-- costs the server next to nothing, while counting, bucketing and comparing there would double the cost of the read.
-- The arrays of one row are aligned; -1 stands for NULL, and what changed after the statement began counts as 0.
--
-- A role without pg_read_all_stats gets NULL for backend_type and all times; what it can still tell is which session has
-- a database and a user. In that mode a parallel worker or a logical walsender cannot be told from a client.
SELECT
    coalesce(database.datname::text, '') AS datname,
    CASE WHEN usesysid IS NULL THEN '' ELSE pg_catalog.pg_get_userbyid(usesysid)::text END AS usename,
    application_name,
    host(client_addr) AS client_addr,
    state,
    session_ms,
    unused_ms,
    transaction_ms,
    pids
FROM (
    SELECT
        datid,
        usesysid,
        application_name COLLATE "C" AS application_name,
        client_addr,
        CASE WHEN backend_type IS NULL THEN '(hidden)' ELSE coalesce(state, '(unknown)') END COLLATE "C" AS state,
        array_agg(CASE
            WHEN backend_start < statement_timestamp()
                THEN (date_part('epoch', statement_timestamp() - backend_start) * 1000)::int8
            WHEN backend_start IS NULL THEN -1
            ELSE 0
        END)::text AS session_ms,
        array_agg(CASE
            WHEN state_change < statement_timestamp()
                THEN (date_part('epoch', statement_timestamp() - state_change) * 1000)::int8
            WHEN state_change IS NULL THEN -1
            ELSE 0
        END)::text AS unused_ms,
        array_agg(CASE
            WHEN xact_start < statement_timestamp()
                THEN (date_part('epoch', statement_timestamp() - xact_start) * 1000)::int8
            WHEN xact_start IS NULL THEN -1
            ELSE 0
        END)::text AS transaction_ms,
        array_agg(pid)::text AS pids
    FROM pg_catalog.pg_stat_get_activity(NULL)
    WHERE backend_type = 'client backend'
       OR (backend_type IS NULL AND datid IS NOT NULL AND usesysid IS NOT NULL)
    GROUP BY 1, 2, 3, 4, 5
) AS packed
LEFT JOIN pg_catalog.pg_database AS database ON database.oid = packed.datid
