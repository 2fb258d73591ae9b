#!/bin/sh
# The database's first start: the shop, and the roles of pgleak as `pgleak grants --server-version 18` prints them.
# The image's entrypoint has read POSTGRES_PASSWORD_FILE into POSTGRES_PASSWORD by now, and removed the name of the file.
set -eu
: "${POSTGRES_PASSWORD:?}"
psql --username "${POSTGRES_USER:-postgres}" --dbname postgres --no-psqlrc --quiet --set ON_ERROR_STOP=1 <<'END'
\getenv password POSTGRES_PASSWORD
CREATE ROLE shop LOGIN PASSWORD :'password';
CREATE DATABASE shop OWNER shop;

CREATE ROLE pgleak LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 3 PASSWORD :'password';
GRANT CONNECT ON DATABASE postgres TO pgleak;
GRANT pg_read_all_stats TO pgleak WITH INHERIT TRUE;
GRANT pg_use_reserved_connections TO pgleak WITH INHERIT TRUE;

CREATE ROLE pgleak_canary LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 2 PASSWORD :'password';
GRANT CONNECT ON DATABASE postgres TO pgleak_canary;
END
