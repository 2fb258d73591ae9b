#!/bin/sh
# The database's first start: the shop, and the roles of pgleak as `pgleak grants --server-version 18` prints them.
set -eu
psql --username "${POSTGRES_USER:-postgres}" --dbname postgres --no-psqlrc --quiet --set ON_ERROR_STOP=1 \
    --set password="$(cat "$POSTGRES_PASSWORD_FILE")" <<'END'
CREATE ROLE shop LOGIN PASSWORD :'password';
CREATE DATABASE shop OWNER shop;

CREATE ROLE pgleak LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 3 PASSWORD :'password';
GRANT CONNECT ON DATABASE postgres TO pgleak;
GRANT pg_read_all_stats TO pgleak WITH INHERIT TRUE;
GRANT pg_use_reserved_connections TO pgleak WITH INHERIT TRUE;

CREATE ROLE pgleak_canary LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 2 PASSWORD :'password';
GRANT CONNECT ON DATABASE postgres TO pgleak_canary;
END
