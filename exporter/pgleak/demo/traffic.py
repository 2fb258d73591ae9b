"""Customers of the demo's shop: a few requests in a second, each answered or not."""

from __future__ import annotations

import http.client
import threading
from dataclasses import replace

from pgleak.demo.screen import Requests

_PAUSE = 0.1  # seconds between two requests


class Traffic:
    """Sends requests from a thread until it is told to stop."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self.requests = Requests()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        methods = ("POST", "GET", "GET")
        while not self._stopping.wait(_PAUSE):
            done = self.requests
            method = methods[(done.answered + done.failed) % len(methods)]
            if status(self._host, self._port, method, "/orders") < http.HTTPStatus.INTERNAL_SERVER_ERROR:
                self.requests = replace(done, answered=done.answered + 1)
            else:
                self.requests = replace(done, failed=done.failed + 1)


def status(host: str, port: int, method: str, path: str) -> int:
    """Send one request; the status of its answer, or 599 when there is none."""
    connection = http.client.HTTPConnection(host, port, timeout=3)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return 599
    else:
        return response.status
    finally:
        connection.close()
