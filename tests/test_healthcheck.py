"""The container's health check asks where the exporter listens, and knows an answer from silence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import bcrypt
import pytest

from web_support import make_server_identity, serving

if TYPE_CHECKING:
    from pgleak.web import WebServer

PROGRAM = Path(__file__).parents[1] / "tools" / "healthcheck.py"


def check(listen: str) -> int:
    environment = {**os.environ, "PGLEAK_LISTEN": listen}
    return subprocess.run([sys.executable, PROGRAM], env=environment, timeout=20, check=False).returncode


def port(server: WebServer) -> int:
    return server.address[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "0.0.0.0", ""])
def test_it_asks_where_the_exporter_listens(host: str) -> None:
    with serving(host=host) as server:
        assert check(f"{host}:{port(server)}") == 0
    assert check(f"{host}:{port(server)}") == 1


def test_it_asks_over_ipv6() -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.fail("this test needs IPv6 on loopback: sysctl net.ipv6.conf.lo.disable_ipv6=0", pytrace=False)
    with serving(host="::1") as server:
        assert check(f"[::1]:{port(server)}") == 0


def test_passwords_and_tls_do_not_make_an_exporter_unhealthy(tmp_path: Path) -> None:
    make_server_identity(tmp_path)
    password = bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode()
    for number, text in enumerate(
        (f"basic_auth_users: {{a: {password}}}", "tls_server_config: {cert_file: server.crt, key_file: server.key}")
    ):
        config = tmp_path / f"web{number}.yml"
        config.write_text(text, encoding="utf-8")
        with serving(web_config_file=config) as server:
            assert check(f"127.0.0.1:{port(server)}") == 0


def test_an_exporter_that_is_stuck_is_unhealthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the kernel takes the connection; nobody answers
        assert check(f"127.0.0.1:{listener.getsockname()[1]}") == 1
