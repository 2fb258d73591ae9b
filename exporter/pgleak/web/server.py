"""The server: one listening socket, one thread per connection, a bounded number of them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import selectors
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, cast

from pgleak.web.connection import Connection, House
from pgleak.web.crowd import Crowd
from pgleak.web.limits import Limits
from pgleak.web.pages import Pages
from pgleak.web.reload import LivePolicy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pgleak.web.site import Site

log = logging.getLogger("pgleak.web")

_BACKLOG = 512
_LAST_PORT = 65535
_QUIET = 60.0  # seconds between two lines of the log about the same lack
_STACK = 1024 * 1024  # bytes; ordinary threads reserve 8 MiB each, which a strict memory policy counts in full
_SIGNALS = 1.0  # seconds
_STACK_LOCK = threading.Lock()
_ADVICE = {
    errno.EADDRINUSE: "another program, perhaps another pgleak, listens there; stop it or choose another port",
    errno.EACCES: "ports below 1024 need a privilege; choose a higher one",
    errno.EADDRNOTAVAIL: "this machine has no such address; use one of its own, or 0.0.0.0 for all",
}
_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class ListenError(OSError):
    """The listen address cannot be used. Its text says which one, why, and what to do."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()


class WebServer:
    """Serves a :class:`~pgleak.web.site.Site` over HTTP or HTTPS.

    Listens from the moment it is made, answers from ``start()`` or ``serve_forever()`` on, until ``shutdown()``.
    Raises WebConfigError for a wrong web config file and ListenError for an address that cannot be had. A web config
    that goes wrong later leaves the last good one in force; ``config_problem`` then says what is wrong.
    """

    def __init__(
        self,
        site: Site,
        host: str,
        port: int,
        *,
        web_config_file: Path | None = None,
        scrape_timeout: float = 8.0,
        scrape_offset: float = 0.5,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits or Limits()
        self._policy = LivePolicy(web_config_file, clock)
        self._listener = _listen(host, port)
        self._house = House(
            pages=Pages(site, scrape_timeout, scrape_offset),
            crowd=Crowd(min(self._limits.connections, _half_of_the_descriptors()), clock),
            limits=self._limits,
            policy=self._policy.current,
            clock=clock,
        )
        bound = self._listener.getsockname()
        self.address: tuple[str, int] = (bound[0], bound[1])
        self._waker, self._wake = socket.socketpair()
        self._wake.settimeout(0.0)
        self._stopping = False
        self._complained = float("-inf")  # when the lack of resources was last logged
        self._serving: int | None = None  # the thread in serve_forever
        self._done = threading.Event()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where a browser on this machine finds ``/``, without the slash."""
        host, port = self.address
        name = "localhost" if host in {"0.0.0.0", "::"} else host  # noqa: S104 -- compared, not bound
        scheme = "https" if self._policy.current().tls is not None else "http"
        return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"

    @property
    def lets_everybody_in(self) -> bool:
        """Whether it listens on every address of the machine, and asks for no password and no certificate."""
        return self.address[0] in {"0.0.0.0", "::"} and not self._policy.current().asks  # noqa: S104 -- compared, not bound

    @property
    def config_problem(self) -> str:
        """What is wrong with the web config file since it was last read, or nothing. Holds no secrets."""
        return self._policy.problem

    def start(self) -> None:
        """Serves in a thread of its own."""
        threading.Thread(target=self.serve_forever, name=f"pgleak-web-{self.address[1]}", daemon=True).start()

    def serve_forever(self) -> None:
        """Serves until shutdown, then lets requests under way end."""
        with self._lock:
            if self._serving is not None or self._done.is_set():
                raise RuntimeError("a web server serves once")
            self._serving = threading.get_ident()
        try:
            self._accept()
        finally:
            self._close()

    def shutdown(self) -> None:
        """Stops listening, ends idle connections, gives requests under way a few seconds. May be called repeatedly.

        Returns when all is closed, except in the thread of ``serve_forever`` itself: a signal handler there may call
        it, and ``serve_forever`` then returns when all is closed.
        """
        self._stopping = True
        self._house.crowd.refuse()
        with contextlib.suppress(OSError):
            self._wake.send(b"x")
        if self._serving == threading.get_ident():
            return
        if self._lock.acquire(blocking=False):  # held: somebody else starts or closes
            try:
                if self._serving is None:
                    self._serving = threading.get_ident()  # never started: there is nobody else to close
                    self._close()
            finally:
                self._lock.release()
        self._done.wait(self._limits.grace + 1.0)

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._waker, selectors.EVENT_READ)
            while not self._stopping:
                # With a timeout: a signal that arrives just before the call does not end it, and its handler runs only afterwards.
                ready = selector.select(_SIGNALS)
                if self._stopping:
                    return
                if not ready:
                    continue
                try:
                    sock, peer = self._listener.accept()
                except OSError as error:
                    self._cannot_accept(error)
                    continue
                self._welcome(sock, str(peer[0]))

    def _cannot_accept(self, error: OSError) -> None:
        if error.errno in _OUT_OF_RESOURCES:
            self._complain(f"cannot accept a connection: {error.strerror}; closing the longest-stalled one")
            self._house.crowd.make_room()
            self._waker.settimeout(0.1)  # the connection needs a moment to go; the next try is not for nothing
            with contextlib.suppress(OSError):
                self._waker.recv(1, socket.MSG_PEEK)
        elif not isinstance(error, BlockingIOError):
            log.debug("a connection ended before it was accepted: %s", type(error).__name__)

    def _complain(self, text: str) -> None:
        """Log a lack of resources, which meets every client alike, once in a while."""
        now = self._house.clock()
        if now - self._complained >= _QUIET:
            self._complained = now
            log.warning("%s", text)

    def _welcome(self, sock: socket.socket, peer: str) -> None:
        member = None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            member = self._house.crowd.admit(sock)
            if member is None:
                sock.close()
                return
            _start_thread(Connection(member, peer, self._house).run, f"pgleak-web-{self.address[1]}-{peer}")
        except (OSError, RuntimeError) as error:  # RuntimeError: no more threads to be had
            self._complain(f"cannot serve a connection: {type(error).__name__}")
            if member is not None:
                self._house.crowd.leave(member)
            sock.close()

    def _close(self) -> None:
        self._stopping = True
        self._listener.close()
        self._house.crowd.close(self._limits.grace)
        self._waker.close()
        self._wake.close()
        self._done.set()


def _half_of_the_descriptors() -> int:
    """Leave the other half to the servers that are watched, and to files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(soft // 2, 1)


def _start_thread(run: Callable[[], None], name: str) -> None:
    thread = threading.Thread(target=run, name=name, daemon=True)
    with _STACK_LOCK:
        before = threading.stack_size(_STACK)
        try:
            thread.start()
        finally:
            threading.stack_size(before)


def _listen(host: str, port: int) -> socket.socket:
    """A non-blocking listening socket; no host means every address, IPv4 and IPv6 alike where the machine has both."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not 0 <= port <= _LAST_PORT:  # the resolver takes more, and the remainder of it
        raise ListenError(errno.EINVAL, f"cannot listen on {where}: ports go from 0 to {_LAST_PORT}")
    try:
        both = host in {"", "::"} and socket.has_dualstack_ipv6()
        family, address = _resolve("::" if both else host or "0.0.0.0", port)  # noqa: S104 -- it was asked for
        sock = socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except socket.gaierror as error:
        raise ListenError(error.errno, f"cannot listen on {where}: this host name is not known") from None
    except OSError as error:
        code = error.errno or errno.EINVAL
        advice = _ADVICE.get(code, "choose another address")
        raise ListenError(code, f"cannot listen on {where}: {os.strerror(code)}: {advice}") from None
    sock.settimeout(0.0)
    return sock


def _resolve(host: str, port: int) -> tuple[int, tuple[str, int]]:
    """What a host name stands for; IPv4 where there is a choice, as "localhost" in a scrape config mostly means it."""
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(infos, key=lambda info: info[0] != socket.AF_INET)
    return family, cast("tuple[str, int]", address)
