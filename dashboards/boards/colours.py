"""What a colour means, the same on every panel of every dashboard: each meaning has one, and no colour has two.

Servers, applications and places in the code have no colour here: Grafana gives each name one of its own palette, the same
everywhere, and that has these as well. Tiles, cells, states, holders, limits, heat maps and marks take theirs from here alone.
"""

from __future__ import annotations

GOOD, ATTENTION, BAD = "#73BF69", "#FF9830", "#F2495C"
"""What a figure is judged by; no series is given one of them, or it would look judged."""

UNKNOWN = "#8E8E8E"  # hidden, folded together, or nobody's
LIMIT = "#C4162A"  # where connections are refused: a dashed line
PAST = "#B0B0B0"  # a record beside what is now
FLOOR = "#1F60C4"  # the lowest of what is USED
USED = "#5794F2"
IDLE = "#8AB8FF"
ACTIVE = "#37872D"
IN_TRANSACTION = "#F2CC0C"
ABORTED = "#8F3BB8"
WAITING = "#FFF899"
NEVER_REUSED = "#33B5AE"
PASSED_OVER = "#FF6FB5"
OVERDUE = "#FA6400"
OWNER_DEAD = "#A0522D"
ORPHANED = "#B877D9"
UNCLAIMED = "#DEB6F2"
DETACHED = "#5F8A8B"
EVERYBODY = "#E8B8A0"  # all connections of a server, beside one application's
NUMBER = "#00A8E8"  # how many, in a heat map: the more, the stronger
STARTED = "#7A5CFA"  # a mark: an application, or one of its processes, began anew
SERVER_STARTED = "#A3A847"  # a mark: PostgreSQL did

STATES = {
    "active": ACTIVE,
    "idle": IDLE,
    "idle in transaction": IN_TRANSACTION,
    "idle in transaction (aborted)": ABORTED,
    "(hidden)": UNKNOWN,
}
"""States of a connection, as the label ``state`` has them."""

EVIDENCE = {"stuck_in_transaction": IN_TRANSACTION, "never_reused": NEVER_REUSED, "passed_over": PASSED_OVER}
"""Kinds of evidence, as the label ``evidence`` has them."""

POOL_STATES = {"used": USED, "idle": IDLE}
"""States of a pool's connection, as its label ``state`` has them."""

HOLDERS = {
    "pooled": IDLE,
    "in_use": USED,
    "overdue": OVERDUE,
    "owner_dead": OWNER_DEAD,
    "orphaned": ORPHANED,
    "unclaimed": UNCLAIMED,
    "unknown": UNKNOWN,
}
"""Who holds a connection, as the label ``holder`` has it: blue is in order."""
