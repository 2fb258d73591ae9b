"""What a colour means, the same on every panel of every dashboard. Names and hex values as Grafana's palette has them."""

from __future__ import annotations

LIMIT = "#C4162A"  # where connections are refused: a dashed line
USED = "#5794F2"
IDLE = "#8AB8FF"
ACTIVE = "#73BF69"
IN_TRANSACTION = "#FF9830"
ABORTED = "#F2495C"
UNKNOWN = "#8E8E8E"  # hidden, folded together, or nobody's
PAST = "#B0B0B0"  # a record or a floor beside what is now
WAITING = "#F2CC0C"

GOOD, ATTENTION, BAD = "#73BF69", "#FF9830", "#F2495C"

STATES = {
    "active": ACTIVE,
    "idle": IDLE,
    "idle in transaction": IN_TRANSACTION,
    "idle in transaction (aborted)": ABORTED,
    "(hidden)": UNKNOWN,
}
"""States of a connection, as the label ``state`` has them."""

EVIDENCE = {"stuck_in_transaction": IN_TRANSACTION, "never_reused": "#33B5AE", "passed_over": "#FF6FB5"}
"""Kinds of evidence, as the label ``evidence`` has them."""

POOL_STATES = {"used": USED, "idle": IDLE}
"""States of a pool's connection, as its label ``state`` has them."""

HOLDERS = {
    "pooled": IDLE,
    "in_use": USED,
    "overdue": IN_TRANSACTION,
    "owner_dead": BAD,
    "orphaned": "#B877D9",
    "unclaimed": "#A352CC",
    "unknown": UNKNOWN,
}
"""Who holds a connection, as the label ``holder`` has it: blue is in order."""
