"""One client's connection, from the handshake to the end, in a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgleak.web.crowd import Phase
from pgleak.web.pages import ADDRESSES, Visit
from pgleak.web.request import RequestError, find_head, parse_head
from pgleak.web.response import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgleak.web.crowd import Crowd, Member
    from pgleak.web.limits import Limits
    from pgleak.web.pages import Pages
    from pgleak.web.policy import Policy
    from pgleak.web.request import Request
    from pgleak.web.response import Response
    from pgleak.web.tls import ServerTls

log = logging.getLogger("pgleak.web")

_CHUNK = 16 * 1024
_LINGER_BYTES = 256 * 1024
_PLAIN_TO_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    b"Content-Length: 41\r\n\r\nThis address speaks HTTPS: use https://.\n"
)


@dataclass(frozen=True, slots=True)
class House:
    """What all connections of one server share."""

    pages: Pages
    crowd: Crowd
    limits: Limits
    policy: Callable[[], Policy]  # the web config as of now
    clock: Callable[[], float] = time.monotonic


class _HungUpError(Exception):
    """The client ended the connection, or was ended, between two requests: nothing is left to say."""


class Connection:
    """The requests of one connection, one after the other. ``run`` never raises, and closes the socket."""

    def __init__(self, member: Member, peer: str, house: House) -> None:
        self._member = member
        self._peer = peer
        self._house = house
        self._buffer = bytearray()
        self._policy: Policy  # as of the handshake, then of the latest request

    def run(self) -> None:
        try:
            self._serve()
        except (_HungUpError, OSError) as error:
            log.debug("connection of %s ended: %s", self._peer, type(error).__name__)
        except Exception as error:  # noqa: BLE001 -- a fault of one connection stays with it; no text, it may quote
            log.error("a connection ended by a fault of pgleak: %s", type(error).__name__)
        finally:
            self._house.crowd.leave(self._member)
            self._member.sock.close()

    def _serve(self) -> None:
        deadline = self._house.clock() + self._house.limits.receive
        self._policy = self._house.policy()
        if self._policy.tls is not None:
            self._start_tls(self._policy.tls, deadline)
        last = False
        first = True
        while not last:
            head = False
            try:
                request = self._receive(deadline if first else None)
            except RequestError as refused:
                response, last = plain(refused.status, refused.text), True
            else:
                response, last = self._answer(request)
                last = last or self._house.crowd.closed
                head = request.method == "HEAD"
            first = False
            data = response.encode(extra=self._policy.headers, close=last, head=head)
            if not self._house.crowd.enter(self._member, Phase.SENDING):
                raise _HungUpError
            self._send(data)
            if not self._house.crowd.enter(self._member, Phase.READING) and not last:
                raise _HungUpError
        self._hang_up()

    def _start_tls(self, tls: ServerTls, deadline: float) -> None:
        try:
            with self._house.crowd.replacing():
                self._member.sock = sock = tls.wrap(self._member.sock)
            sock.settimeout(self._left(deadline))
            sock.do_handshake()
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                self._member.sock.settimeout(0.0)
                socket.socket.send(self._member.sock, _PLAIN_TO_TLS)
                self._hang_up()
            raise
        if not tls.welcomes(sock):
            log.debug("connection of %s ended: no allowed name in its certificate", self._peer)
            raise _HungUpError

    def _receive(self, deadline: float | None) -> Request:
        """Wait for a request; raises _HungUpError or RequestError. Without a deadline, it runs from the first byte."""
        limits, buffer = self._house.limits, self._buffer
        idle = self._house.clock() + limits.idle
        start = 0
        while True:
            while buffer and buffer[0] in b"\r\n":  # some clients end the body that they did not send
                del buffer[0]
            end = find_head(buffer, limits, start=start)
            if end:
                break
            if buffer and deadline is None:
                deadline = self._house.clock() + limits.receive
            start = len(buffer)
            try:
                self._member.sock.settimeout(self._left(idle if deadline is None else deadline))
                chunk = self._member.sock.recv(_CHUNK)
            except TimeoutError:
                if not buffer:
                    raise _HungUpError from None
                raise RequestError(408, f"No whole request arrived within {limits.receive:g} seconds.") from None
            if not chunk:
                raise _HungUpError
            buffer += chunk
        if not self._house.crowd.enter(self._member, Phase.WORKING):
            raise _HungUpError
        head = bytes(buffer[:end])
        del buffer[:end]
        return parse_head(head, limits, self._peer)

    def _answer(self, request: Request) -> tuple[Response, bool]:
        """Give the answer, and whether it is the last one of this connection."""
        started = self._house.clock()
        policy = self._house.policy()
        last = request.last or policy.tls is not self._policy.tls  # a new certificate or CA is for new connections
        self._policy = policy
        response = policy.refusal(request)
        if response is None:
            own = self._member.sock.getsockname()
            visit = Visit(request, started, policy.tls is not None, f"{_bracketed(own[0])}:{own[1]}")
            response = self._house.pages.answer(visit)
        if log.isEnabledFor(logging.DEBUG):
            # Neither path nor query of an unknown address: somebody may have put a connection string there.
            path = request.path if request.path in ADDRESSES else "(no such address)"
            taken = (self._house.clock() - started) * 1000
            log.debug("%s %s %s %d %.1f ms", self._peer, request.method, path, response.status, taken)
        return response, last

    def _send(self, data: bytes) -> None:
        deadline = self._house.clock() + self._house.limits.send
        rest = memoryview(data)
        while rest:
            self._member.sock.settimeout(self._left(deadline))
            rest = rest[self._member.sock.send(rest) :]

    def _hang_up(self) -> None:
        """Says goodbye and waits a moment: closing with input unread would destroy the answer on its way."""
        sock = self._member.sock
        if isinstance(sock, ssl.SSLSocket):
            sock.settimeout(0.0)
            with contextlib.suppress(OSError, ValueError):
                sock.unwrap()
        deadline = self._house.clock() + self._house.limits.linger
        taken = 0
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_WR)
            while taken < _LINGER_BYTES:
                sock.settimeout(self._left(deadline))
                chunk = socket.socket.recv(sock, _CHUNK)
                if not chunk:
                    return
                taken += len(chunk)

    def _left(self, deadline: float) -> float:
        left = deadline - self._house.clock()
        if left <= 0:
            raise TimeoutError
        return left


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
