"""Listening, starting and stopping."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from pgleak.web import Limits, ListenError, WebServer
from web_support import Client, FakeSite, get, serving, until, web_threads

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"


def test_port_0_takes_a_free_port_and_tells_it() -> None:
    with serving() as server:
        host, port = server.address
        assert host == "127.0.0.1"
        assert port > 0
        assert server.url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("host", ["::1", "::", "", "localhost", "0.0.0.0"])
def test_every_kind_of_address_can_be_listened_on(host: str) -> None:
    with serving(host=host) as server:
        ways = {"::1": ["::1"], "::": ["::1", "127.0.0.1"], "": ["::1", "127.0.0.1"]}.get(host, ["127.0.0.1"])
        for way in ways:
            with socket.create_connection((way, server.address[1]), timeout=10) as sock:
                sock.sendall(b"GET /sd HTTP/1.0\r\n\r\n")
                answer = sock.makefile("rb").read().decode()
            assert answer.startswith("HTTP/1.1 200 OK\r\n")
            shown = f"[{way}]" if ":" in way else way
            assert f"{shown}:{server.address[1]}" in answer.replace("[::ffff:127.0.0.1]", "127.0.0.1")
        expected = "[::1]" if host == "::1" else "localhost" if host in {"::", "", "0.0.0.0"} else "127.0.0.1"
        assert server.url == f"http://{expected}:{server.address[1]}"


def test_an_address_in_use_says_which_one_and_what_to_do() -> None:
    with serving() as server:
        port = server.address[1]
        with pytest.raises(ListenError) as caught:
            WebServer(FakeSite(), "127.0.0.1", port)
    assert caught.value.errno == errno.EADDRINUSE
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use: another program, perhaps another pgleak, "
        "listens there; stop it or choose another port"
    )


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("192.0.2.1", 10432, "cannot listen on 192.0.2.1:10432: Cannot assign requested address: this machine has no"),
        ("no-such-host.invalid", 10432, "cannot listen on no-such-host.invalid:10432: this host name is not known"),
        ("127.0.0.1", 70000, "cannot listen on 127.0.0.1:70000: ports go from 0 to 65535"),
        ("2001:db8::1", 10432, "cannot listen on [2001:db8::1]:10432: "),
    ],
)
def test_an_address_that_cannot_be_had_says_why(host: str, port: int, said: str) -> None:
    with pytest.raises(OSError, match="cannot listen on") as caught:
        WebServer(FakeSite(), host, port)
    assert str(caught.value).startswith(said)


def test_a_port_can_be_taken_again_at_once() -> None:
    with serving() as server:
        get(server, "/metrics", Connection="close")
        port = server.address[1]
    again = WebServer(FakeSite(), "127.0.0.1", port)
    again.shutdown()


def test_shutdown_lets_requests_end_and_closes_idle_connections_at_once() -> None:
    hold = threading.Event()
    site = FakeSite(hold=hold)
    with serving(site) as server, Client(server) as busy, Client(server) as idle, Client(server) as half:
        assert idle.get("/-/healthy").status == 200
        half.send(b"GET /metr")
        busy.send(REQUEST)
        until(lambda: len(site.asked) == 1)
        stopping = threading.Thread(target=server.shutdown)
        stopping.start()
        assert idle.at_end()
        assert half.at_end()
        with pytest.raises(ConnectionRefusedError):
            Client(server)
        assert stopping.is_alive()
        hold.set()
        answer = busy.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert busy.at_end()
        stopping.join()
        server.shutdown()  # once more changes nothing


def test_shutdown_does_not_wait_for_ever() -> None:
    hold = threading.Event()
    site = FakeSite(hold=hold)
    with serving(site, limits=dataclasses.replace(Limits(), grace=0.2)) as server, Client(server) as busy:
        busy.send(REQUEST)
        until(lambda: len(site.asked) == 1)
        started = time.monotonic()
        server.shutdown()
        assert time.monotonic() - started < 1.0
        assert busy.at_end()
        hold.set()


def test_a_server_that_never_served_can_be_closed() -> None:
    server = WebServer(FakeSite(), "127.0.0.1", 0)
    server.shutdown()
    server.shutdown()
    with pytest.raises(ConnectionRefusedError):
        Client(server)
    with pytest.raises(RuntimeError, match="serves once"):
        server.serve_forever()


def test_a_signal_handler_may_shut_down_the_thread_that_serves() -> None:
    """As pgleak serve does on SIGTERM: the process ends by itself, quickly, with the answers given."""
    program = """
        import signal, sys
        sys.path[:0] = sys.argv[1:]
        from pgleak.web import WebServer
        from web_support import FakeSite
        server = WebServer(FakeSite(), "127.0.0.1", 0)
        signal.signal(signal.SIGTERM, lambda *_: server.shutdown())
        print(server.address[1], flush=True)
        server.serve_forever()
        print("closed")
    """
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), os.path.dirname(__file__)],  # noqa: PTH120
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.sendall(REQUEST)
            assert sock.recv(15) == b"HTTP/1.1 200 OK"
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "closed\n", "")


def test_running_out_of_file_descriptors_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    """The longest-stalled connection is closed for the next one, without a busy loop or a flood of log lines."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving() as server, contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(Client(server)) for _ in range(5)]
        until(lambda: len(server._house.crowd) == 5)
        late = Client(server)
        stack.enter_context(late)
        until(lambda: len(server._house.crowd) == 6)
        newest = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        newest.settimeout(20)
        used = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        try:
            with contextlib.suppress(OSError):
                while True:  # until there are no gaps
                    stack.callback(os.close, os.dup(newest.fileno()))
            newest.connect(server.address)
            newest.sendall(REQUEST)
            assert newest.recv(15) == b"HTTP/1.1 200 OK"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert stalled[0].at_end()
        assert late.get("/metrics").status == 200
    assert len(caplog.records) < 10


@pytest.mark.parametrize("lack", ["descriptors", "service"])
def test_a_lack_that_meets_every_client_is_logged_once_a_minute(lack: str, caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    server = WebServer(FakeSite(), "127.0.0.1", 0, clock=lambda: now)
    gone = socket.socket()
    gone.close()  # no option can be set on it
    for moment in (0.0, 1.0, 59.0, 60.0, 61.0, 119.0, 120.0):
        now = moment
        if lack == "descriptors":
            server._cannot_accept(OSError(errno.EMFILE, "Too many open files"))
        else:
            server._welcome(gone, "127.0.0.1")
    server.shutdown()
    said = {
        "descriptors": "cannot accept a connection: Too many open files; closing the longest-stalled one",
        "service": "cannot serve a connection: OSError",
    }
    assert caplog.messages == [said[lack]] * 3


def test_threads_end_with_their_connections() -> None:
    with serving() as server:
        for _ in range(20):
            get(server, "/metrics")
        until(lambda: len(web_threads(server)) == 1)
        assert web_threads(server) == [f"pgleak-web-{server.address[1]}"]
