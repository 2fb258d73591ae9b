"""What the PostgreSQL drivers tell about a connection, and how each is given an application_name.

No driver is imported: what a connection offers is asked of the connection. Anything else than what is expected (another
database, a proxy, a newer driver) is "unknown" and never an error.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgleak import variables

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from sqlalchemy.engine import URL

NAME_LIMIT = 63  # bytes that the server keeps (NAMEDATALEN - 1)


@dataclass(frozen=True, slots=True)
class Facts:
    """One connection as its driver knows it."""

    pid: int | None = None
    application_name: str | None = None
    server: str | None = None
    role: tuple[str, ...] = ()  # who it logged in as, with the options that set a search path, for example


def facts(driver: Any) -> Facts:
    """Ask a driver's connection who it is; nothing goes over the wire. Never raises."""
    try:
        if hasattr(driver, "get_server_pid"):
            return _asyncpg(driver)
        if hasattr(driver, "_backend_key_data"):
            return _pg8000(driver)
        return _libpq(driver.info)
    except Exception:  # noqa: BLE001 - a driver of another kind, or a connection already dead
        return Facts()


def _libpq(info: Any) -> Facts:
    """psycopg2 and psycopg 3 have the same `info`."""
    return Facts(
        info.backend_pid or None,
        info.parameter_status("application_name"),
        _address(info.host, info.port, info.dbname),
        (str(getattr(info, "user", "")), str(getattr(info, "options", ""))),
    )


def _asyncpg(driver: Any) -> Facts:
    return Facts(driver.get_server_pid(), getattr(driver.get_settings(), "application_name", None))


def _pg8000(driver: Any) -> Facts:
    key = driver._backend_key_data  # noqa: SLF001 - there is no public way
    name = driver.parameter_statuses.get("application_name")
    return Facts(int.from_bytes(key[:4], "big"), name.decode() if isinstance(name, bytes) else name)


def address(url: URL) -> str:
    """`host:port/database`, without user and password."""
    if url.get_backend_name() != "postgresql":
        return f"{url.get_backend_name()}:{url.host or ''}/{url.database or ''}"
    host = url.host or url.query.get("host", "") or "localhost"
    if not isinstance(host, str):
        host = ",".join(host)
    return _address(host, url.port or 5432, url.database or url.username or "")


def pool_name(url: URL, application_name: str | None) -> str:
    """What a pool is called that was given no name: its database, after its application where that has been named.

    Two applications on one database that share a folder of state files would be one pool otherwise. A name that is only
    in `connect_args` or PGAPPNAME is not seen here.
    """
    told = application_name or url.query.get("application_name") or os.environ.get(variables.APPLICATION_NAME)
    return f"{told}/{address(url)}" if isinstance(told, str) else address(url)


def _address(host: object, port: object, database: object) -> str:
    return f"{host}:{port}/{database}"


def program_name() -> str:
    """What this process is called: PGLEAK_APPLICATION_NAME, else the script or the module it was started with."""
    name = os.environ.get(variables.APPLICATION_NAME)
    if name:
        return name
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in {"__main__", ""}:  # python -m package
        return str(spec.name).removesuffix(".__main__")
    return Path(sys.argv[0]).stem if sys.argv and sys.argv[0] not in {"", "-c", "-"} else "python"


def name_connection(driver: str, positional: Iterable[Any], parameters: MutableMapping[str, Any], name: str) -> None:
    """Give a new connection's parameters an application_name, unless the user chose one in any of the usual ways."""
    if any("application_name" in text for text in (*_texts(positional), *_texts(parameters.values()))):
        return
    name = name.encode()[:NAME_LIMIT].decode(errors="ignore")
    chosen = os.environ.get("PGAPPNAME")
    if driver in {"psycopg2", "psycopg", "psycopg_async"}:
        if "application_name" not in os.environ.get("PGOPTIONS", ""):
            # libpq's own "when nothing else says": it stands back behind PGAPPNAME and service files too
            parameters.setdefault("fallback_application_name", name)
    elif driver == "asyncpg":
        settings = dict(parameters.get("server_settings") or {})
        parameters["server_settings"] = {"application_name": chosen or name, **settings}
    elif driver == "pg8000":
        parameters["application_name"] = parameters.get("application_name") or chosen or name


def _texts(values: Any) -> list[str]:
    return [value for value in values if isinstance(value, str)]
