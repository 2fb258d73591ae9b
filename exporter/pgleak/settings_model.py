"""What can be set, with defaults and bounds: plain frozen data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgleak.application_names import DEFAULT_IGNORED, DEFAULT_REWRITES, Rewrite
from pgleak.metrics import GROUPING
from pgleak.settings_schema import count, seconds

if TYPE_CHECKING:
    from pathlib import Path

    from pgleak.dsn import Dsn

_MONTH = 30 * 86400.0

DEFAULT_GROUP_BY = GROUPING[:3]  # client_addr only where it is asked for: it multiplies the series


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits in seconds, so that `/metrics` answers in time whatever a server does."""

    scrape: float = seconds(8.0, 0.1, 600.0)  # of one read; an asker that waits less is answered earlier
    scrape_offset: float = seconds(0.5, 0.0, 60.0)  # taken off the scraper's own limit, for the way back
    connect: float = seconds(5.0, 0.1, 120.0)  # of one attempt, and never more than what is left of the read
    lock: float = seconds(1.0, 0.01, 60.0)  # lock_timeout of the held connection
    keepalive_idle: float = seconds(30.0, 1.0, 7200.0)  # quiet time until TCP asks whether the server is there


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Seconds after which a connection that is not active counts as a suspect."""

    stuck_in_transaction: float = seconds(3600.0, 1.0, _MONTH)
    never_reused: float = seconds(300.0, 1.0, _MONTH)
    passed_over: float = seconds(3600.0, 1.0, _MONTH)
    idle_in_transaction: float = seconds(900.0, 1.0, _MONTH)  # stuck, too: used before, silent for so long


@dataclass(frozen=True, slots=True)
class Caps:
    """Distinct label values for each server; the rest is summed into `(other)`."""

    datname: int = count(100, 1, 10_000)
    usename: int = count(100, 1, 10_000)
    application_name: int = count(100, 1, 10_000)
    client_addr: int = count(100, 1, 10_000)


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the HTTP server listens; an empty host is every address of the machine, port 0 a free one."""

    host: str = "127.0.0.1"
    port: int = 10432

    @classmethod
    def parse(cls, text: str) -> Listen:
        """From `host:port`, `:port` or `[::1]:port`. Raises ValueError that says what is allowed."""
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([\w.-]*)):([0-9]{1,5})", text.strip())
        if not match or int(match[3]) > 65535:
            raise ValueError("must be host:port, :port or [::1]:port, with a port from 0 (a free one) to 65535")
        return cls(match[1] or match[2], int(match[3]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Canary:
    """A fresh login as an ordinary role, at most once in `interval` seconds."""

    dsn: Dsn
    interval: float = seconds(60.0, 1.0, 600.0)


@dataclass(frozen=True, slots=True)
class Target:
    """One server; `name` is its label `server`."""

    name: str
    dsn: Dsn
    canary: Canary | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set."""

    targets: tuple[Target, ...]
    listen: Listen = Listen()
    web_config_file: Path | None = None
    connections_page: bool = True  # / and /connections tell of single connections, too
    pool_dir: Path | None = None  # where the processes of an application report their pools
    group_by: tuple[str, ...] = DEFAULT_GROUP_BY
    application_names: tuple[Rewrite, ...] = DEFAULT_REWRITES
    ignored_applications: tuple[re.Pattern[str], ...] = DEFAULT_IGNORED  # full match; counted, never judged
    ignored_users: tuple[re.Pattern[str], ...] = ()  # likewise
    reporting_applications: tuple[re.Pattern[str], ...] = ()  # all of their processes report to pool_dir
    caps: Caps = Caps()
    timeouts: Timeouts = Timeouts()
    thresholds: Thresholds = Thresholds()
