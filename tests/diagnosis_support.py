"""What one look at a server and its processes found, for tests of what is made of it."""

from __future__ import annotations

from pgleak.pool.snapshot import Backend, Checkout, Frame, Owner, ProcessIdentity
from pgleak.who.connection import Connection
from pgleak.who.report import Application, Report
from pgleak.who.room import ServerState

HOUR = 3600.0
AT = 1_800_000_000.0
SEEN = Connection(
    "db", 7, "shop", "shop", "shop", "10.0.0.1", "idle", 9 * HOUR, 8 * HOUR, None, "never_reused", "unknown"
)


def report(*connections: Connection, used: int = 30, usable: int = 97) -> Report:
    server = ServerState("db", "db1:5432", used=used, usable=usable)
    return Report(AT, (server,), (Application("db", "shop", "shop", connections),), None, {})


def held(number: int, owner: Owner, *standing: Frame, context: str = "") -> Connection:
    took = (Frame("jobs", "load", "jobs.py", 10), Frame("jobs", "turn", "jobs.py", 20))
    checkout = Checkout(
        number, Backend(number, 0.0, "db/x"), 0.0, 900.0, "session", "pool", took[0].site, took, owner, standing,
        context, None,
    )  # fmt: skip
    dead = owner.state == "dead"
    return SEEN._replace(
        pid=number, holder="owner_dead" if dead else "overdue", cause="owner_dead" if dead else "overdue",
        checkout=checkout, process=ProcessIdentity(1, 0.0, "", "", "shop"),
    )  # fmt: skip


LOAD, TURN = Frame("jobs", "load", "jobs.py", 10), Frame("jobs", "turn", "jobs.py", 20)
