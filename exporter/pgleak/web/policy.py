"""What the web config file makes of the server: whom it lets in, and what it adds to answers."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgleak import smallfile
from pgleak.problem import Problem
from pgleak.web import tls
from pgleak.web.auth import BasicAuth, TooManyAttemptsError
from pgleak.web.config import WebConfigError, parse
from pgleak.web.response import plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pgleak.web.request import Request
    from pgleak.web.response import Response


@dataclass(frozen=True, slots=True)
class Policy:
    """One version of the web config, ready to use. The empty one lets everybody in, over plain HTTP."""

    tls: tls.ServerTls | None = None
    headers: tuple[tuple[str, str], ...] = ()
    auth: BasicAuth | None = None
    bucket: TokenBucket | None = None
    notes: tuple[str, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether it lets in only those who have a password, or a certificate."""
        return self.auth is not None or (self.tls is not None and self.tls.asks)

    def opening(self, before: Policy) -> str:
        """What it gives up that an earlier version asked of clients; empty when nothing."""
        if before.tls is not None and self.tls is None:
            return "TLS"
        if before.tls is not None and self.tls is not None and self.tls.weaker_than(before.tls):
            return "client certificates"
        if before.auth is not None and self.auth is None:
            return "passwords"
        return ""

    def refusal(self, request: Request) -> Response | None:
        """The answer to a client that is not let in; None to one that is. No address is exempt."""
        if self.bucket is not None and not self.bucket.take():
            return plain(429, "Too many requests: the web config limits their rate.")
        if self.auth is None:
            return None
        try:
            if self.auth.allows(request.header("authorization"), request.peer):
                return None
        except TooManyAttemptsError:
            return plain(429, "Too many log-ins wait to be checked.", ("Retry-After", "1"))
        challenge = ("WWW-Authenticate", 'Basic realm="pgleak", charset="UTF-8"')
        return plain(401, "A user name and password are needed.", challenge)


class TokenBucket:
    """Lets one request through per interval, and as many as the bucket holds at once. Thread-safe."""

    def __init__(self, interval: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._filled = clock()
        self._lock = threading.Lock()

    def take(self) -> bool:
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._filled) / self._interval)
            self._filled = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


def load(file: Path, clock: Callable[[], float] = time.monotonic) -> tuple[Policy, tuple[Path, ...]]:
    """Reads the web config file and all that it names; raises WebConfigError with every problem at once.

    The second value is the other files whose change makes another policy; the error has it as ``files``.
    """
    try:
        text = smallfile.content(file).decode("utf-8-sig")
    except OSError as error:
        raise WebConfigError(file, [Problem("", f"{error.strerror or 'cannot be read'}")]) from None
    except UnicodeDecodeError:
        raise WebConfigError(file, [Problem("", "this is not UTF-8 text")]) from None
    config, problems = parse(text, file)
    notes = list(config.notes)
    server_tls = None
    if config.tls is not None:
        server_tls, more, hints = tls.build(config.tls)
        problems += more
        notes += hints
    if problems:
        raise WebConfigError(file, problems, config.files)
    policy = Policy(
        tls=server_tls,
        headers=config.headers,
        auth=BasicAuth(config.users) if config.users else None,
        bucket=TokenBucket(*config.rate_limit, clock) if config.rate_limit else None,
        notes=tuple(notes),
    )
    return policy, config.files
