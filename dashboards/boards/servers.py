"""What is asked about servers and the applications on them, for more than one panel."""

from __future__ import annotations

from boards.promql import HOUR, PER_APPLICATION, growth, nameless, once, per_application, recorded, select
from pgleak import metrics
from pgleak.holders import metrics as holders

USED = f"max by (server) ({select(metrics.USED)})"
UP = f"max by (server) ({select(metrics.UP)})"
USABLE = f"max by (server) ({select(metrics.USABLE)})"
FULL = f"{USED} / {USABLE}"
CONNECTIONS = per_application(select(metrics.CONNECTIONS))
SUSPECTS = per_application(select(metrics.SUSPECTS))
_LOST = 'holder=~"overdue|owner_dead|orphaned|unclaimed"'
# What an application's pools say, within minutes, while the server has no evidence yet. They do not know the role.
POOL_SUSPECTS = (
    "label_replace(sum by (server, application_name) ("
    f"{once('server, application_name, holder', select(holders.BACKENDS, _LOST))}), "
    '"usename", "by its pools", "", "")'
)
_GROWTH_PER_HOUR = f"last_over_time({recorded('application:pgleak_connections:growth_per_hour')}[15m])"
# Of what is still there: a slope over six hours outlives the application.
GROWTH = (
    f"({nameless(PER_APPLICATION, _GROWTH_PER_HOUR)}"
    f" or {HOUR} * {growth(CONNECTIONS)}) and on ({PER_APPLICATION}) {CONNECTIONS} > 0"
)
_RULES = f"on (server) {recorded('server:pgleak_usable_connections:free')}"
LOOK_LEAKED = 3
"""Suspects from which on a growth counts as a leak where no rules are loaded; with them, they say whose does."""
LEAK_GROWTH = (
    f"{nameless(PER_APPLICATION, recorded('application:pgleak_suspected:growth_per_hour'))}"
    f" or ({GROWTH} and on ({PER_APPLICATION}) {SUSPECTS} >= {LOOK_LEAKED} unless {_RULES})"
)
# The place in the code that holds most of an application's connections too long, where one pgleak sees both halves.
CODE = (
    f"0 * {CONNECTIONS} + on (server, application_name) group_left (site) topk by (server, application_name) "
    f"(1, {once('server, application_name, site', select(holders.OVERDUE))} > 0)"
)
SERVER_GROWTH = f"{HOUR} * {growth(USED)}"
# Where nothing looks leaked, growth is the load of the day. A month is for ever: at such a distance the slope is noise. A
# server that is full does not grow any more, whoever filled it.
TIME_LEFT = (
    f"(0 * ({USED} >= {USABLE}) or {nameless('server', recorded('server:pgleak_time_to_exhaustion:seconds'))}"
    f" or (({USABLE} - {USED}) / ({growth(USED)} > 0)"
    f" and on (server) {SUSPECTS} >= {LOOK_LEAKED} unless {_RULES})) < {30 * 86400}"
)
