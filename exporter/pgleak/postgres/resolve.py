"""Resolves host names for libpq, which would do it while it holds the interpreter's lock.

psycopg2's asynchronous connect calls ``getaddrinfo`` in C without releasing the GIL: one slow name service would stop
every thread of the exporter, and with them all other targets. Python's own ``getaddrinfo`` releases it. libpq gets the
addresses as ``hostaddr`` beside ``host``, so that certificates and ``~/.pgpass`` are still looked up by name.
"""

from __future__ import annotations

import configparser
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from pgleak import libpq, smallfile
from pgleak.postgres.reasons import ReadError

if TYPE_CHECKING:
    from collections.abc import Mapping


def resolved(parameters: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return ``host``, ``hostaddr`` and ``port`` with every name resolved; empty where there is none to resolve.

    A name with several addresses becomes several hosts, which libpq tries in order. Raises :class:`ReadError` when no
    name resolves, ``DsnError`` for a host that is a connection string. May take as long as the name service does.
    """
    service = _service(parameters, environ)
    if parameters.get("hostaddr") or service.get("hostaddr") or environ.get("PGHOSTADDR"):
        return {}
    given = parameters.get("host") or service.get("host") or environ.get("PGHOST", "")
    libpq.check({"host": given})  # which nobody has seen yet: it may come from a service, or from PGHOST
    hosts = given.split(",")
    if not any(_is_name(host) for host in hosts):
        return {}
    ports = (parameters.get("port") or service.get("port") or environ.get("PGPORT", "")).split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        return {}  # libpq says what is wrong
    expanded: list[tuple[str, str, str]] = []
    unknown = []
    for host, port in zip(hosts, ports, strict=True):
        addresses = _addresses(host) if _is_name(host) else [""]
        expanded += [(host, address, port) for address in addresses]
        unknown += [] if addresses else [host]
    if not expanded:
        raise ReadError("unreachable", f"could not translate host name {', '.join(unknown)} to address")
    columns = zip(*expanded, strict=True)
    return dict(zip(("host", "hostaddr", "port"), map(",".join, columns), strict=True))


def _addresses(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_name(host: str) -> bool:
    """Whether this is neither a socket folder, nor an address, nor empty."""
    if not host or host.startswith(("/", "@")) or ":" in host:
        return False
    return not host.replace(".", "").isdigit()


def _service(parameters: Mapping[str, str], environ: Mapping[str, str]) -> Mapping[str, str]:
    """What the user's service file says of the host; a file elsewhere is left to libpq."""
    name = parameters.get("service") or environ.get("PGSERVICE")
    if not name:
        return {}
    path = Path(environ.get("PGSERVICEFILE") or Path("~/.pg_service.conf").expanduser())
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
    try:
        parser.read_string(smallfile.content(path, pipe=True).decode())
        return dict(parser[name])
    except (OSError, UnicodeError, KeyError, configparser.Error):
        return {}
