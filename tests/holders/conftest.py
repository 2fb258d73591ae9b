"""A fleet of processes and a pooler, ended with the test."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import servers
from holders.processes import Fleet, tool
from pgleak.demo.embedded import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.demo.embedded import EmbeddedPostgres


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "state", [])
    yield fleet
    fleet.close()


@pytest.fixture
def pgbouncer(postgres16: EmbeddedPostgres, tmp_path: Path) -> Iterator[int]:
    """A pooler in front of the server; its port."""
    port = free_port()
    folder = tmp_path / "bouncer"
    folder.mkdir(mode=0o755)
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host=127.0.0.1 port={postgres16.port} user=postgres\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\npool_mode = session\n"
    )
    command = [tool("pgbouncer", "pgbouncer"), str(settings)]
    if os.geteuid() == 0:
        for each in (folder, *folder.parents):
            if each.owner() == "root" and Path("/tmp") in each.parents:
                each.chmod(0o755)
        command = [tool("setpriv", "util-linux"), "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        servers.wait_until(listens)
        yield port
    finally:
        process.terminate()
        process.wait(10)
