"""From what is known of connections to what is said of them: since when, how fast, when it is full."""

from __future__ import annotations

from pgleak.pool.snapshot import Backend, Checkout, Frame, Owner, ProcessIdentity
from pgleak.who.causes import cause_of
from pgleak.who.diagnosis import diagnose, pace
from pgleak.who.plain import plain
from pgleak.who.report import Application, Connection, Report, ServerState
from pgleak.who.table import table
from pgleak.who.words import duration, tell

HOUR = 3600.0
SEEN = Connection(
    "db", 7, "shop", "shop", "shop", "10.0.0.1", "idle", 9 * HOUR, 8 * HOUR, None, "never_reused", "unknown"
)


def report(*connections: Connection, used: int = 30, usable: int = 97) -> Report:
    server = ServerState("db", "db1:5432", used=used, usable=usable)
    return Report(1_800_000_000.0, (server,), (Application("db", "shop", "shop", connections),), None, {})


def leaked(hours: float) -> Connection:
    return SEEN._replace(pid=int(hours * 100), age=(hours + 1) * HOUR, unused=hours * HOUR)


def test_it_says_since_when_how_fast_and_when_the_server_is_full() -> None:
    """From one look: the ages of the leaked ones are the history."""
    seen = report(*(leaked(hours) for hours in (1, 2, 3, 4, 5)), SEEN._replace(evidence=""), used=87)
    findings = diagnose(seen)
    (found,) = findings.diagnoses
    assert (found.connections, found.total, found.since, found.per_hour) == (5, 6, 5 * HOUR, 1.0)
    (outlook,) = findings.outlooks
    assert outlook.seconds == 10 * HOUR
    text = " ".join(" ".join(tell(seen, findings)).split())
    assert "shop leaks on db: 5 of its 6 connections do not come back." in text
    assert "(5 h ago), +1.0 an hour" in text
    assert "87 of 97 usable connections taken, full in 10 h if nobody acts" in text
    assert table(seen, findings)[1].endswith("full in 10 h")


def test_one_connection_or_one_minute_gives_no_pace() -> None:
    assert pace(1, 5 * HOUR) is None
    assert pace(12, 59.0) is None
    assert pace(12, 60.0) == 720.0


def test_a_full_server_is_full_now() -> None:
    seen = report(leaked(1), leaked(2), used=99)
    assert "full now" in " ".join(tell(seen, diagnose(seen)))


def test_where_the_process_reports_the_servers_suspicion_does_not_count() -> None:
    """A last-in-first-out pool leaves its oldest connections idle: passed over, and perfectly free."""
    pooled = SEEN._replace(holder="pooled", process=ProcessIdentity(1, 0.0, "", "", "shop"), pool="shop")
    assert diagnose(report(pooled)).diagnoses == ()
    assert diagnose(report(SEEN)).diagnoses[0].cause.key == "never_reused"


def test_where_the_owner_stands_tells_why_it_holds() -> None:
    def told(*standing: Frame, kind: str = "session") -> str:
        took = (Frame("jobs", "load", "jobs.py", 10), Frame("jobs", "turn", "jobs.py", 20))
        held = Checkout(
            1, Backend(7, 0.0, "db/x"), 0.0, 900.0, "session" if kind == "session" else "connection", "pool",
            took[0].site, took, Owner("thread", "t", "alive"), standing, "", None,
        )  # fmt: skip
        process = ProcessIdentity(1, 0.0, "", "", "shop")
        cause = cause_of(SEEN._replace(holder="overdue", cause="overdue", checkout=held, process=process))
        assert cause is not None
        return cause.key

    assert told(Frame("jobs", "load", "jobs.py", 8)) == "kept_between_turns"
    assert told(Frame("jobs", "load", "jobs.py", 12)) == "held_while_working"
    assert told(Frame("bank", "ask", "bank.py", 1), Frame("jobs", "turn", "jobs.py", 22)) == "held_while_working"
    assert told(Frame("jobs", "turn", "jobs.py", 22), kind="connection") == "function_left_it_open"
    assert told() == "session_left_open"
    assert told(kind="connection") == "function_left_it_open"


def test_names_cannot_move_a_terminals_cursor() -> None:
    bad = SEEN._replace(usename="\x1b[2Jx", client_addr="10.0.0.1\r")
    seen = Report(0.0, (), (Application("db", "\x1b[2Jx", "shop\x07", (bad,)),), None, {})
    for line in (*table(seen, diagnose(seen), everything=True), *tell(seen, diagnose(seen))):
        assert line.isprintable() or not line


def test_json_has_numbers_or_null_and_nothing_else_for_what_is_not_known() -> None:
    seen = report(SEEN._replace(age=None, unused=None, state="(hidden)", evidence=""))
    (application,) = plain(seen, diagnose(seen))["applications"]
    assert (application["connections"][0]["age"], application["connections"][0]["owner"]) == (None, None)


def test_durations_have_two_units_at_most() -> None:
    assert [duration(each) for each in (0.4, 89, 90, 5990, 6000, 9600, 36_000, 260_000, 3_000_000)] == [
        "0 s", "89 s", "1 min", "99 min", "1 h 40 min", "2 h 40 min", "10 h", "3 d", "34 d",
    ]  # fmt: skip
