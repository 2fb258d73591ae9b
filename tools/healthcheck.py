"""The container's health check: exit code 0 while the exporter answers, 1 when it does not.

It asks where PGLEAK_LISTEN says that the exporter listens. Any answer below 500 is one: with passwords configured it is
401. With TLS the exporter hangs up on this plain question, and is healthy. A stuck one lets the caller wait.
"""

from __future__ import annotations

import os
import socket
import sys

_PATIENCE = 3.0  # seconds
_EVERY_ADDRESS = {"", "0.0.0.0"}


def answers(listen: str) -> bool:
    """Whether something takes a request at ``host:port``, ``:port`` or ``[::1]:port`` and reacts to it in time."""
    host, _, port = listen.strip().rpartition(":")
    host = host.strip("[]")
    # Of an exporter that listens on every address, it is loopback that is asked.
    address = "127.0.0.1" if host in _EVERY_ADDRESS else "::1" if host == "::" else host
    try:
        with socket.create_connection((address, int(port)), _PATIENCE) as connection:
            connection.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
            status_line = connection.makefile("rb").readline(64)
    except (ConnectionResetError, BrokenPipeError):
        return True
    except (OSError, ValueError):
        return False
    return not status_line.split(b" ")[1:2] or status_line.split(b" ")[1] < b"500"


if __name__ == "__main__":
    sys.exit(0 if answers(os.environ.get("PGLEAK_LISTEN") or "127.0.0.1:10432") else 1)
