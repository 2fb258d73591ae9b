"""How long the web server waits for its clients, and how many it has at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and counts. The times are for the whole of a step, so that a trickle of bytes cannot stretch them."""

    connections: int = 256
    receive: float = 10.0  # TLS handshake and request
    send: float = 30.0  # answer
    idle: float = 300.0  # between two requests of one connection; scrapes are often a minute or more apart
    grace: float = 5.0  # what requests under way have to end at shutdown
    linger: float = 1.0  # how long a client may take to hang up after the last answer
    request_line: int = 8 * 1024
    head: int = 32 * 1024  # request line and headers
    headers: int = 100
