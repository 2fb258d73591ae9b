"""What the exporter's ``/metrics`` says, read as Prometheus would read it. The demo knows nothing else."""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from pgleak import metrics
from pgleak.pool.metrics import OVERDUE

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Application:
    """One ``application_name``, summed over databases and users."""

    name: str
    connections: int = 0
    suspects: Mapping[str, int] = field(default_factory=dict)  # by evidence

    @property
    def suspected(self) -> int:
        return sum(self.suspects.values())


@dataclass(frozen=True, slots=True)
class Holder:
    """A call site that holds connections for too long, as the pool in the application's process reports it."""

    pool: str
    site: str
    connections: int


@dataclass(frozen=True, slots=True)
class View:
    """One scrape. ``time`` is Unix time; a server that could not be read has ``up`` False and nothing else."""

    time: float
    up: bool = False
    used: int = 0
    usable: int = 0
    login_succeeds: bool | None = None  # None where no canary has tried yet
    applications: Mapping[str, Application] = field(default_factory=dict)
    holders: tuple[Holder, ...] = ()  # the largest first

    @property
    def is_full(self) -> bool:
        """Whether ordinary roles are refused."""
        return self.used >= self.usable or self.login_succeeds is False


def scrape(host: str, port: int, timeout: float) -> View | None:
    """Ask for ``/metrics`` over HTTP; None when there is no answer in time."""
    # Without urllib, which would send a request to loopback through the proxy of the environment.
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", "/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": f"{timeout:g}"})
        response = connection.getresponse()
        text = response.read().decode()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return parse(text, time.time()) if response.status == http.HTTPStatus.OK else None


def parse(text: str, now: float) -> View:
    """Read the text format."""
    values: dict[str, float] = {}
    connections: dict[str, int] = {}
    suspects: dict[str, dict[str, int]] = {}
    holders = []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.labels.get("application_name", "")
            if sample.name == metrics.CONNECTIONS.name:
                connections[name] = connections.get(name, 0) + int(sample.value)
            elif sample.name == metrics.SUSPECTS.name:
                found = suspects.setdefault(name, {})
                evidence = sample.labels["evidence"]
                found[evidence] = found.get(evidence, 0) + int(sample.value)
            elif sample.name == OVERDUE.name and sample.value:
                holders.append(Holder(sample.labels["pool"], sample.labels["site"], int(sample.value)))
            else:
                values[sample.name] = sample.value
    login = values.get(metrics.LOGIN_SUCCESS.name)
    return View(
        time=now,
        up=values.get(metrics.UP.name) == 1,
        used=int(values.get(metrics.USED.name, 0)),
        usable=int(values.get(metrics.USABLE.name, 0)),
        login_succeeds=None if login is None else login == 1,
        applications={name: Application(name, number, suspects.get(name, {})) for name, number in connections.items()},
        holders=tuple(sorted(holders, key=lambda holder: -holder.connections)),
    )
