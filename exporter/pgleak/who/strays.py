"""What processes hold for too long on connections that no watched server shows. Pure.

Either the server has ended them, and the process does not know yet; or it was read before they were opened; or nobody can
say on which server they are. All are found by the processes alone, so all are told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pgleak.holders.claims import bad_checkouts_of
from pgleak.holders.join import GREATEST_PID

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pgleak.holders.claims import Claim
    from pgleak.holders.join import Join
    from pgleak.pool.reading import Reading as Folder
    from pgleak.pool.snapshot import ProcessIdentity
    from pgleak.postgres.reader import Reading


_REMEMBERED = 1000  # addresses


class Stray(NamedTuple):
    """One such connection."""

    claim: Claim
    address: str
    server: str  # "" where nobody can say
    is_ended: bool = False  # by that server, which otherwise was read before it was opened


class Homes:
    """Which server is meant by an address that the processes of one machine use, an alias perhaps; from look to look."""

    def __init__(self) -> None:
        self._servers: dict[tuple[str, str, str], str] = {}

    def learn(self, join: Join) -> None:
        seen: dict[tuple[str, str, str], str] = {}
        for (process, address), server in join.places.items():
            if seen.setdefault(_key(process, address), server) != server:
                seen[_key(process, address)] = ""  # the same name for two servers, in containers of one name perhaps
        before = {key: server for key, server in self._servers.items() if key not in seen}
        self._servers = {**before, **seen}
        for key in list(self._servers)[:-_REMEMBERED]:
            del self._servers[key]

    def server(self, process: ProcessIdentity, address: str) -> str:
        return self._servers.get(_key(process, address), "")


def _key(process: ProcessIdentity, address: str) -> tuple[str, str, str]:
    return process.boot, process.host, address


def strays(
    readings: Sequence[Reading], addresses: Mapping[str, str], folder: Folder, join: Join, homes: Homes
) -> Iterator[Stray]:
    """Those of servers that can be read: what the others have is taken from the processes anyway."""
    asked = {reading.name: reading.asked for reading in readings if reading.server is not None}
    down = {addresses.get(reading.name, "") for reading in readings if reading.server is None}
    if not asked:
        return
    bad = list(bad_checkouts_of(folder.processes))
    bad_pids = {each.backend.pid for each in bad}
    shown = {
        (claim.process, claim.backend)
        for backend, _, claim, _ in join.held
        if backend.pid in bad_pids and claim is not None
    }
    found = [each for each in bad if (each.process, each.backend) not in shown and address_of(each) not in down]
    if not found:
        return
    since = min(asked.values())
    pids = {held.backend.pid for held in join.held}
    for claim in found:
        address = address_of(claim)
        at_address = [name for name in asked if addresses.get(name) == address]
        server = join.places.get((claim.process, address)) or (at_address[0] if len(at_address) == 1 else "")
        server = server or homes.server(claim.process, address)
        pid = claim.backend.pid or 0
        if not 0 < pid <= GREATEST_PID:
            yield Stray(claim, address, "")
        elif claim.backend.opened >= asked.get(server, since):
            if server in asked and pid not in pids:  # else nobody can say yet, and soon somebody can
                yield Stray(claim, address, server)
        elif server not in asked or pid in pids:
            yield Stray(claim, address, "")
        elif (
            claim.checkout is not None and claim.checkout.place == "pool"
        ):  # what belongs to no pool any more keeps nobody waiting
            yield Stray(claim, address, server, is_ended=True)


def address_of(claim: Claim) -> str:
    """`host:port` as the application has it."""
    return claim.backend.server.rpartition("/")[0]
