"""The container's health check: exit code 0 while the exporter answers, 1 when it does not.

Any answer below 500 is one: with passwords configured it is 401. With TLS the exporter hangs up on this plain
question, and is healthy. A stuck one lets the caller wait.
"""

from __future__ import annotations

import socket
import sys

_PATIENCE = 3.0  # seconds


def answers(port: int) -> bool:
    """Whether something on this machine's loopback takes a request on the port and reacts to it in time."""
    try:
        with socket.create_connection(("127.0.0.1", port), _PATIENCE) as connection:
            connection.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
            status_line = connection.makefile("rb").readline(64)
    except (ConnectionResetError, BrokenPipeError):
        return True
    except OSError:
        return False
    return not status_line.split(b" ")[1:2] or status_line.split(b" ")[1] < b"500"


if __name__ == "__main__":
    sys.exit(0 if answers(int(sys.argv[1]) if len(sys.argv) > 1 else 10432) else 1)
