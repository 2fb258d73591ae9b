"""What can be wrong with the role that a server is watched as, in words: for the log and for ``pgleak check``."""

from __future__ import annotations

SUPERUSER = "more than it takes, and it uses up the slots reserved for you: `pgleak grants` prints the SQL for a role of its own"
BLIND = "does not see other roles' states: counts only, no ages, no suspects"
BLIND_REMEDY = "GRANT pg_read_all_stats to the role; if it is a member already, it is NOINHERIT: see `pgleak grants`"
