"""Who holds each connection of real servers, when the processes that have them report: every circumstance for real."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import servers
from holders.processes import APPLICATION, READ, Fleet, joined, of, outlived, seen, settled, tool, url
from pgleak.holders.coverage import Coverage
from pgleak.holders.join import IMPRECISION, PROMPT_LOGIN, join

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Connect, NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres

NAME = "holders-test"

#: nsenter would lose an ordinary user's rights in the namespace with the program that it starts.
NUMBER_NEXT = """
import ctypes, os, sys

for path in sys.argv[2:]:
    with open(path) as namespace:
        assert ctypes.CDLL(None).setns(namespace.fileno(), 0) == 0, path
if not os.fork():  # only children are in the other namespace of processes
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write(sys.argv[1])
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def unshared(*kinds: str) -> list[str]:
    """A command prefix for namespaces of one's own, as root or as anybody."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
    return [tool("unshare", "util-linux"), *user, "--fork", "--kill-child", *kinds]


def test_each_kind_of_holder_is_told(postgres: EmbeddedPostgres, fleet: Fleet) -> None:
    fleet.start(url(postgres, NAME), "in_use", "in_use", "owner_dead", "pooled")
    fleet.start(url(postgres, f"{NAME}-late"), "overdue")
    found = settled(
        fleet, postgres, expected={NAME: ["in_use", "in_use", "owner_dead", "pooled"], f"{NAME}-late": ["overdue"]}
    )
    (late,) = of(found, f"{NAME}-late")
    assert late.claim is not None
    assert late.claim.checkout is not None
    line = next(n for n, text in enumerate(APPLICATION.read_text().splitlines(), 1) if text.endswith("# TAKEN"))
    assert (late.claim.checkout.frames[0].line, late.claim.checkout.site) == (line, "__main__:take")
    assert not found.unplaced


def test_what_no_pool_counts_is_orphaned(postgres16: EmbeddedPostgres, fleet: Fleet) -> None:
    fleet.start(url(postgres16, NAME), "orphaned", "orphaned")
    settled(fleet, postgres16, expected={NAME: ["orphaned", "orphaned", "in_use"]})


def test_a_process_in_other_network_and_process_namespaces_is_matched(
    postgres16: EmbeddedPostgres, fleet: Fleet
) -> None:
    """It reaches the server over a socket, by an address that nobody else uses, and its process id is not what it seems."""
    address = f"&host={postgres16.socket_dir}&port={postgres16.port}"
    dsn = f"postgresql+psycopg2://postgres@/postgres?application_name={NAME}{address}"
    fleet.start(dsn, "in_use", "in_use", "pooled", before=unshared("--net", "--pid"))
    found = settled(fleet, postgres16, expected={NAME: ["in_use", "in_use", "pooled"]})
    assert {held.claim.process.pid for held in of(found, NAME) if held.claim} == {1}


class Twin:
    """A server in a process namespace of its own, where the first process is 1: its backends are numbered like a container's."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        server.stop()
        become = []
        if os.geteuid() == 0:
            become = [tool("setpriv", "util-linux"), "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        self.server = server
        self.process = subprocess.Popen(
            [*unshared("--pid"), *become, str(server._bin_dir / "postgres"), "-D", str(server.data_dir)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip

    def number_next(self, pid: int) -> None:
        """Let the next process of the namespace have this id."""
        own = Path("/proc", str(self.process.pid), "ns")
        spaces = [own / "pid_for_children"] if os.geteuid() == 0 else [own / "user", own / "pid_for_children"]
        subprocess.run([sys.executable, "-c", NUMBER_NEXT, str(pid - 1), *map(str, spaces)], check=True)

    def close(self) -> None:
        self.process.kill()  # and with it, the namespace
        self.process.wait()


@pytest.fixture
def twins(new_postgres: NewPostgres) -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    with contextlib.ExitStack() as started:
        made = []
        for _ in range(2):
            twin = Twin(new_postgres(16, autovacuum="off"))
            started.callback(twin.close)
            made.append(twin.server)
        for server in made:
            servers.wait_until(functools.partial(accepts, server), 20)
        yield made[0], made[1]


def accepts(server: EmbeddedPostgres) -> bool:
    with contextlib.suppress(Exception):
        servers.open_connection(server).close()
        return True
    return False


def test_two_servers_with_the_same_process_ids_are_told_apart(
    twins: tuple[EmbeddedPostgres, EmbeddedPostgres], fleet: Fleet
) -> None:
    """Two containers started together number their backends alike, at nearly the same moment, for the same application.

    Within PROMPT_LOGIN of each other nothing tells them apart, and nothing is claimed.
    """
    first, second = twins
    fleet.start(url(first, NAME), *["in_use"] * 12)
    started = time.monotonic()
    servers.wait_until(lambda: time.monotonic() > started + 2 * PROMPT_LOGIN)
    fleet.start(url(second, NAME), *["in_use"] * 12)
    fleet.start(url(second, f"{NAME}-second"), "in_use")
    shared = {each.pid for each in seen(first)} & {each.pid for each in seen(second)}
    assert len(shared) > 5, "the namespaces number their processes differently"
    found = settled(fleet, first, second, expected={NAME: ["in_use"] * 24, f"{NAME}-second": ["in_use"]})
    ports = {"db0": first.port, "db1": second.port}
    for held in [*of(found, NAME), *of(found, f"{NAME}-second")]:
        assert held.claim is not None
        assert held.claim.backend.server == f"127.0.0.1:{ports[held.backend.server]}/postgres"
    assert not found.unplaced


def test_what_fits_two_servers_equally_well_is_claimed_on_neither(postgres16: EmbeddedPostgres, fleet: Fleet) -> None:
    """One server that is watched under two names is the extreme case."""
    fleet.start(url(postgres16, NAME), "in_use")
    found = settled(fleet, postgres16, postgres16, expected={NAME: ["unknown", "unknown"]})
    assert {held.doubt for held in of(found, NAME)} == {"ambiguous"}
    assert [(each.reason, each.connections) for each in found.unplaced] == [("ambiguous", 1)]
    addresses = {"db0": f"127.0.0.1:{postgres16.port}", "db1": "db.example.com:5432"}
    known = join([held.backend for held in found.held], fleet.report().processes, addresses)
    assert [held.holder for held in of(known, NAME)] == ["in_use", "unknown"]


def test_a_restart_in_between_leaves_the_old_connections_on_no_server(
    new_postgres: NewPostgres, fleet: Fleet, connect: Connect
) -> None:
    """The pool still believes in connections that ended with the server; those of the new one are not taken for them."""
    server = new_postgres(16)
    fleet.start(url(server, NAME), "in_use", "pooled")
    settled(fleet, server, expected={NAME: ["in_use", "pooled"]})
    server.restart("immediate")
    connect(server, application_name=NAME)
    found = joined(fleet, server)
    assert [held.holder for held in of(found, NAME)] == ["unknown"]
    assert [(each.reason, each.connections) for each in found.unplaced] == [("not_watched", 2)]


def test_a_process_id_that_came_round_again_is_not_its_predecessor(
    new_postgres: NewPostgres, fleet: Fleet, connect: Connect
) -> None:
    """The pool still believes in a connection that the server ended, and another one gets its number: nobody is named."""
    twin = Twin(new_postgres(16, autovacuum="off"))
    try:
        servers.wait_until(lambda: accepts(twin.server), 20)
        fleet.start(url(twin.server, NAME), "in_use", "in_use")
        settled(fleet, twin.server, expected={NAME: ["in_use", "in_use"]})
        first = min((each for each in seen(twin.server) if each.application_name == NAME), key=lambda each: each.pid)
        assert first.started is not None
        servers.run_sql(twin.server, f"SELECT pg_terminate_backend({first.pid}, 5000)")
        young = first.started + IMPRECISION + 0.5
        servers.wait_until(lambda: time.time() > young)  # younger ones are the same as far as two clocks can tell
        twin.number_next(first.pid)
        connect(twin.server, application_name=NAME)
        found = of(joined(fleet, twin.server), NAME)
    finally:
        twin.close()
    assert sorted((held.backend.pid == first.pid, held.holder, held.doubt) for held in found) == [
        (False, "in_use", ""), (True, "unknown", "other_start"),
    ]  # fmt: skip


def test_what_was_opened_since_the_server_was_read_is_not_missed_there(
    postgres16: EmbeddedPostgres, fleet: Fleet
) -> None:
    """A page shows a reading of the last seconds and what the processes say now."""
    before = time.time()
    fleet.start(url(postgres16, NAME), "in_use", "pooled")
    processes = fleet.report().processes
    assert [each.connections for each in join((), processes, asked={"db0": time.time()}).unplaced] == [2]
    assert join((), processes, asked={"db0": before}).unplaced == ()


def test_a_pooler_in_between_is_said_and_nothing_is_guessed(
    postgres16: EmbeddedPostgres, fleet: Fleet, pgbouncer: int
) -> None:
    fleet.start(url(postgres16, NAME, f"127.0.0.1:{pgbouncer}"), "in_use", "in_use")
    found = settled(fleet, postgres16, expected={NAME: ["unknown", "unknown"]})
    assert [(each.reason, each.connections, each.application_name) for each in found.unplaced] == [("pooler", 2, NAME)]
    coverage = Coverage([re.compile(NAME)], patience=0, rest=0)
    assert {held.holder for held in of(coverage.judge(found, outlived(fleet, found), READ), NAME)} == {"unknown"}
