"""What counts as a client connection, and what each kind of role may see of it."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import TYPE_CHECKING

import psycopg2
import psycopg2.extras
import pytest

import servers
import watching
from pgleak.postgres.activity import HIDDEN, STATES
from pgleak.postgres.connection import wait
from pgleak.postgres.names import STARTING, UNSET
from pgleak.settings import Thresholds
from servers import query, run_sql, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Connect, NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.postgres.reader import Reader, Reading


class Watch:
    """Reads a server as a role, over one held connection per role."""

    def __init__(self) -> None:
        self.readers: dict[tuple[int, str], Reader] = {}

    def __call__(self, server: EmbeddedPostgres, user: str = "postgres", **options: object) -> Reading:
        key = (server.port, user)
        if key not in self.readers:
            self.readers[key] = watching.reader(server, user, **options)
        reading = watching.read(self.readers[key])
        assert reading.server, reading
        return reading


@pytest.fixture
def watch() -> Iterator[Watch]:
    watches = Watch()
    yield watches
    for reader in watches.readers.values():
        reader.close()


@contextlib.contextmanager
def running(server: EmbeddedPostgres, statement: str, application_name: str) -> Iterator[None]:
    """A session that runs a statement meanwhile."""
    session = psycopg2.connect(server.dsn(application_name=application_name), async_=1)
    wait(session, time.monotonic() + 10, time.monotonic)
    session.cursor().execute(statement)
    with contextlib.suppress(TimeoutError):
        wait(session, time.monotonic(), time.monotonic)  # flushes the statement
    try:
        yield
    finally:
        session.close()


def startup_packet(user: str) -> bytes:
    """The first message of PostgreSQL's protocol 3.0."""
    body = struct.pack("!i", 196608) + f"user\0{user}\0database\0postgres\0\0".encode()
    return struct.pack("!i", len(body) + 4) + body


# What counts


def test_every_state_is_counted_and_the_sum_is_what_is_used(
    new_postgres: NewPostgres, connect: Connect, watch: Watch
) -> None:
    server = new_postgres(18)
    connect(server, application_name="app")
    in_transaction, aborted = (connect(server, application_name="app") for _ in range(2))
    query(in_transaction, "BEGIN")
    query(aborted, "BEGIN")
    with pytest.raises(psycopg2.Error):
        query(aborted, "SELECT 1/0")

    with running(server, "SELECT pg_sleep(60)", application_name="app"):
        states = {"active": 1, "idle": 1, "idle in transaction": 1, "idle in transaction (aborted)": 1}
        wait_until(lambda: watching.connections(watch(server)).get("app") == states)
        reading = watch(server)
    assert states.keys() <= STATES.keys(), "documented"
    assert reading.used == 5
    assert reading.used == sum(sum(states.values()) for states in watching.connections(reading).values())


def test_parallel_workers_are_not_connections(new_postgres: NewPostgres, connect: Connect, watch: Watch) -> None:
    server = new_postgres(
        16,
        min_parallel_table_scan_size=0,
        parallel_setup_cost=0,
        parallel_tuple_cost=0,
        max_parallel_workers_per_gather=4,
    )
    run_sql(
        server,
        "CREATE FUNCTION nap(int) RETURNS int LANGUAGE plpgsql PARALLEL SAFE AS $$BEGIN PERFORM pg_sleep(60); RETURN 1; END$$",
        "CREATE TABLE wide AS SELECT generate_series(1, 5000) AS n",
        "ANALYZE wide",
    )
    counting = (
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker' AND application_name = 'big'"
    )
    session = connect(server)
    with running(server, "SELECT sum(nap(n)) FROM wide", application_name="big"):
        wait_until(lambda: query(session, counting)[0][0] >= 1, what="parallel workers")
        reading = watch(server)
        run_sql(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'big'")
    assert sum(watching.connections(reading)["big"].values()) == 1
    assert reading.used == 3


def test_a_walsender_takes_no_ordinary_slot(new_postgres: NewPostgres, connect: Connect, watch: Watch) -> None:
    server = new_postgres(18, wal_level="logical")
    sender = psycopg2.connect(
        server.dsn(application_name="replica"), connection_factory=psycopg2.extras.PhysicalReplicationConnection
    )
    logical = psycopg2.connect(
        server.dsn(application_name="logical"), connection_factory=psycopg2.extras.LogicalReplicationConnection
    )
    session = connect(server)
    senders = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'"
    wait_until(lambda: query(session, senders) == [(2,)])

    reading = watch(server)

    assert watching.connections(reading).keys() == {"pgleak", UNSET}
    assert reading.used == 2

    # A role that may not see what kind of session it is leaves out the physical one, which has no database. The logical
    # one has, so that it cannot be told from a client.
    run_sql(server, "CREATE ROLE blind LOGIN")
    wait_until(
        lambda: query(session, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'") == [(2,)]
    )
    blind = watch(server, "blind")
    assert watching.connections(blind)["logical"] == {HIDDEN: 1}
    assert watching.connections(blind).keys() == {"pgleak", "logical", UNSET}
    assert blind.used == 4, "two of pgleak's, the superuser's and the logical walsender"
    sender.close()
    logical.close()


def test_a_prepared_transaction_without_its_session_is_no_connection(
    postgres: EmbeddedPostgres, connect: Connect, watch: Watch
) -> None:
    before = watch(postgres).used
    session = connect(postgres, application_name="preparer")
    query(session, "BEGIN")
    query(session, "PREPARE TRANSACTION 'left'")
    session.close()
    try:
        wait_until(lambda: watch(postgres).used == before)
        assert watch(postgres).server
    finally:
        run_sql(postgres, "ROLLBACK PREPARED 'left'")


def test_a_login_that_stalls_is_counted_where_the_server_shows_it(new_postgres: NewPostgres, watch: Watch) -> None:
    """PostgreSQL 18 shows a session that has not yet authenticated, in the state `starting`."""
    server = new_postgres(18, password_users=("guarded",))
    run_sql(server, "CREATE ROLE guarded LOGIN PASSWORD 'secret'")
    before = 1  # our own; the one that made the role may still be ending
    wait_until(lambda: watch(server).used == before)
    with socket.create_connection(("127.0.0.1", server.port)) as stalled:
        stalled.sendall(startup_packet("guarded"))
        assert stalled.recv(1) == b"R", "the server asks for the password, and we say nothing"
        wait_until(lambda: watch(server).used == before + 1)
        assert watching.connections(watch(server))[STARTING]["starting"] == 1
        assert "starting" in STATES
    wait_until(lambda: watch(server).used == before)
    assert STARTING not in watching.connections(watch(server))


def test_sessions_with_track_activities_off_are_counted_without_ages(
    new_postgres: NewPostgres, connect: Connect, watch: Watch
) -> None:
    server = new_postgres(16)
    run_sql(server, "CREATE ROLE quiet LOGIN", "ALTER ROLE quiet SET track_activities = off")
    connect(server, user="quiet", application_name="quiet app")
    reading = watch(server)
    ((_, application),) = [entry for entry in reading.applications.items() if entry[0][2] == "quiet app"]
    assert dict(application.states) == {"disabled": 1}
    assert "disabled" in STATES
    assert application.idle.counts[-1] == 0
    assert application.session.counts[-1] == 1
    assert sum(application.suspects) == 0


def test_connections_over_a_unix_socket_count(postgres: EmbeddedPostgres, connect: Connect, watch: Watch) -> None:
    local = psycopg2.connect(postgres.dsn(over_socket=True, application_name="neighbour"))
    assert sum(watching.connections(watch(postgres))["neighbour"].values()) == 1
    local.close()


# Suspects on a real server, with thresholds of a second


def test_each_kind_of_evidence_is_found_on_a_real_server(
    new_postgres: NewPostgres, connect: Connect, watch: Watch
) -> None:
    server = new_postgres(18)
    brief = Thresholds(stuck_in_transaction=1.0, never_reused=1.0, passed_over=1.0)
    stuck = connect(server, application_name="stuck")
    query(stuck, "BEGIN")
    connect(server, application_name="never")
    passed = connect(server, application_name="passed", options="-c application_name=passed")
    healthy = connect(server, application_name="healthy")

    def suspects() -> dict[str, tuple[int, ...]]:
        query(healthy, "SELECT 1")
        found = watch(server, thresholds=brief).applications
        return {name: tuple(application.suspects) for (_, _, name), application in found.items()}

    wait_until(lambda: suspects().get("stuck") == (1, 0, 0), what="a stuck transaction")
    wait_until(lambda: suspects().get("never") == (0, 1, 0), what="a connection never reused")
    # Used again after its first five seconds, then passed over by a younger one.
    wait_until(
        lambda: query(passed, "SELECT now() - backend_start > '5.1 s' FROM pg_stat_get_activity(pg_backend_pid())")[0][
            0
        ]
    )
    wait_until(lambda: suspects()["passed"] == (0, 0, 0))
    wait_until(lambda: idle_for(server, "passed") > 1.5)
    assert suspects()["passed"] == (0, 0, 0), "idle, but nobody came after it"
    connect(server, application_name="passed")
    wait_until(lambda: suspects()["passed"] == (0, 0, 1), what="a connection passed over")
    assert suspects()["healthy"] == (0, 0, 0)


def idle_for(server: EmbeddedPostgres, name: str) -> float:
    session = servers.open_connection(server)
    asking = "SELECT extract(epoch FROM now() - state_change) FROM pg_stat_activity WHERE application_name = %s"
    ((seconds,),) = query(session, asking, name)
    session.close()
    return float(seconds)


# Roles


def test_a_role_without_privileges_still_counts_but_sees_no_ages(
    new_postgres: NewPostgres, connect: Connect, watch: Watch
) -> None:
    server = new_postgres(18)
    run_sql(server, "CREATE ROLE blind LOGIN", "CREATE ROLE other LOGIN")
    for _ in range(3):
        connect(server, user="other", application_name="app")
    reading = watch(server, "blind")
    assert reading.server
    assert not reading.server.stats_visible
    assert watching.connections(reading)["app"] == {"(hidden)": 3}
    assert sum(watching.connections(reading)["pgleak"].values()) == 1
    assert reading.used == 4
    ((_, application),) = [entry for entry in reading.applications.items() if entry[0][2] == "app"]
    assert not application.visible


def test_a_noinherit_member_is_blind_and_told_so(new_postgres: NewPostgres, connect: Connect, watch: Watch) -> None:
    server = new_postgres(servers.system_version())
    run_sql(
        server,
        "CREATE ROLE member LOGIN NOINHERIT IN ROLE pg_read_all_stats",
        "CREATE ROLE heir LOGIN IN ROLE pg_read_all_stats",
        "CREATE ROLE other LOGIN",
    )
    connect(server, user="other", application_name="app")
    blind, seeing = watch(server, "member"), watch(server, "heir")
    is_blind = server.version >= 15  # before, the server looked at membership alone
    assert blind.server
    assert blind.server.stats_visible is not is_blind
    assert watching.connections(blind)["app"] == ({"(hidden)": 1} if is_blind else {"idle": 1})
    assert seeing.server
    assert seeing.server.stats_visible
    assert watching.connections(seeing)["app"] == {"idle": 1}


def test_a_superuser_gets_a_warning_once(
    postgres: EmbeddedPostgres, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "pgleak")
    for _ in range(3):
        watch(postgres)
    assert len([record for record in caplog.records if "superuser" in record.getMessage()]) == 1


# Facts


def test_limits_and_facts_are_the_server_s_own(new_postgres: NewPostgres, watch: Watch) -> None:
    server = new_postgres(16, max_connections=31, superuser_reserved_connections=4, reserved_connections=5)
    run_sql(
        server,
        "CREATE ROLE capped LOGIN CONNECTION LIMIT 7",
        "CREATE DATABASE small TEMPLATE template0 CONNECTION LIMIT 6",
    )
    facts = watch(server).server
    assert facts
    assert (facts.max_connections, facts.superuser_reserved, facts.reserved, facts.usable) == (31, 4, 5, 22)
    assert facts.role_limits == {"capped": 7}
    assert facts.database_limits == {"small": 6}
    assert abs(facts.postmaster_start - time.time()) < 60


def test_session_counters_tell_abandoned_from_killed(new_postgres: NewPostgres, connect: Connect, watch: Watch) -> None:
    server = new_postgres(max(servers.system_version(), 14))
    watch(server)
    killed = connect(server)
    ((pid,),) = query(killed, "SELECT pg_backend_pid()")
    run_sql(server, f"SELECT pg_terminate_backend({pid})")
    lost = socket.create_connection(("127.0.0.1", server.port))
    lost.sendall(startup_packet("postgres"))
    assert lost.recv(1)
    lost.close()  # without saying goodbye

    def counted() -> bool:
        facts = watch(server).server
        assert facts
        sessions = {kind: values.get("postgres", 0) for kind, values in facts.sessions.items()}
        return sessions["sessions"] >= 3 and sessions["sessions_killed"] == 1 and sessions["sessions_abandoned"] >= 1

    wait_until(counted, what="the counters, which PostgreSQL publishes when a session ends")


# Names


@pytest.mark.parametrize(
    "name", ["", "x" * 63, "it's", 'say "hi"', "back\\slash", "%d %s", "{braces}", "(other)", "  "]
)
def test_odd_application_names_survive(postgres: EmbeddedPostgres, connect: Connect, watch: Watch, name: str) -> None:
    session = connect(postgres, application_name=name or None)
    ((stored,),) = query(session, "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    assert stored == name
    assert (stored.strip() or UNSET) in watching.connections(watch(postgres))


@pytest.mark.parametrize("name", ["Zürich", "日本", "line\nbreak"])
def test_what_the_server_makes_of_other_characters_survives(
    postgres: EmbeddedPostgres, connect: Connect, watch: Watch, name: str
) -> None:
    """15 replaces each byte by a question mark, 16 and later write \\x and two digits."""
    session = connect(postgres, application_name=name)
    ((stored,),) = query(session, "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    assert stored != name
    assert ("?" in stored) == (session.server_version < 160000)
    assert stored in watching.connections(watch(postgres))


def test_names_of_roles_and_databases_in_any_encoding_never_fail_a_read(
    new_postgres: NewPostgres, connect: Connect, watch: Watch
) -> None:
    server = new_postgres(16)
    run_sql(
        server,
        "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'",
        'CREATE ROLE "Zoë" LOGIN',
        'CREATE DATABASE "two\nlines" TEMPLATE template0',
    )
    # Stored as one Latin-1 byte, which is not valid UTF-8.
    run_sql(server, 'CREATE ROLE "Renée" CONNECTION LIMIT 3 LOGIN', dbname="latin")
    connect(server, user="Zoë", application_name="app")
    connect(server, dbname="two\nlines", application_name="app")
    reading = watch(server)
    assert reading.server
    names = {(database, user) for database, user, name in reading.applications if name == "app"}
    assert names == {("postgres", "Zoë"), ("two\nlines", "postgres")}
    assert reading.server.role_limits == {"Ren\N{REPLACEMENT CHARACTER}e": 3}
