"""How many connections a server, its roles and its databases have, and how many they may have. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.postgres.activity import Server
    from pgleak.postgres.reader import Reading


@dataclass(frozen=True, slots=True)
class Limit:
    """How many connections one role or one database may have, and how many it has."""

    kind: Literal["role", "database"]
    name: str
    used: int
    most: int

    @property
    def label(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class ServerState:
    """One server that is watched."""

    name: str
    address: str
    reason: str = ""  # why it could not be read; "" when it could
    used: int = 0
    usable: int = 0
    visible: bool = True  # whether the role may see other roles' states
    limits: tuple[Limit, ...] = ()  # in whatever order


def room(reading: Reading, address: str) -> ServerState:
    """Say how full the server of a reading is."""
    if reading.server is None:
        return ServerState(reading.name, address, f"{reading.reason}: {reading.detail}")
    server = reading.server
    return ServerState(
        reading.name, address, "", reading.used, server.usable, server.stats_visible, tuple(_limits(server, reading))
    )


def _limits(server: Server, reading: Reading) -> Iterator[Limit]:
    if not (server.role_limits or server.database_limits):
        return
    roles: Counter[str] = Counter()
    databases: Counter[str] = Counter()
    for pack in reading.packs:
        roles[pack.usename] += pack.size
        databases[pack.datname] += pack.size
    for name, most in server.role_limits.items():
        yield Limit("role", name, roles[name], most)
    for name, most in server.database_limits.items():
        yield Limit("database", name, databases[name], most)
