"""Sets the demo's stage: the database with its roles, the applications, and the exporter with its settings."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

from pgleak.demo.child import Child, ChildEndedError, report
from pgleak.demo.embedded import LOOPBACK, EmbeddedPostgres, free_port
from pgleak.demo.prometheus import Prometheus
from pgleak.demo.scratch import scratch
from pgleak.settings import Listen, Thresholds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_CONNECTIONS = 60
THRESHOLDS = Thresholds(stuck_in_transaction=10, never_reused=10, passed_over=20, idle_in_transaction=10)
SHOP = Path(__file__).with_name("app.py")

_CANARY_INTERVAL = 5  # seconds
_APPLICATIONS = ("shop", "billing", "reports")
# One log line for each suspect: site=module:function (file:line)
_NAMED = re.compile(r"held for .* site=\S+ \((\S+):(\d+)\)")
_LISTENS = re.compile(r"listens on https?://\S+:(\d+)")
_EXPORTER = "pgleak"
_CANARY = "canary"
_POOLS = "pools"  # where the shop reports its pool


class Exporter:
    """``pgleak serve`` with a settings file of its own, on the usual port or, where that is taken, on a free one."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self._folder = folder
        self._settings = settings
        self.settings_file = folder / "pgleak.yml"
        self.port = 0  # until it listens
        self.child = self._start(Listen().port)

    def _start(self, port: int) -> Child:
        self.settings_file.write_text(
            json.dumps({"listen": f"{LOOPBACK}:{port}", **self._settings}, indent=2)
        )  # JSON is YAML
        return Child("exporter", self._folder, ["pgleak", "serve", "--config", str(self.settings_file)])

    def listens(self) -> bool:
        """Say whether it listens by now, and start it anew where the usual port was taken."""
        # Its own words, and not an open port: that one may be another program's.
        if found := _LISTENS.search(self.child.said()):
            self.port = int(found[1])
        elif self.child.has_ended and "cannot listen" in self.child.said():
            self.child.end()
            self.child = self._start(0)
        return self.port != 0

    def end(self) -> None:
        self.child.end()


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs."""

    server: EmbeddedPostgres
    version: str
    applications: tuple[Child, ...]
    shop_port: int
    exporter: Exporter
    prometheus: Prometheus

    def leaking_line(self) -> str:
        """Return the line that pgleak has named in the shop's log, as ``file:line``; empty before it has."""
        found = _NAMED.search(self.applications[0].said())
        return f"{Path(found[1]).name}:{found[2]}" if found else ""

    @property
    def children(self) -> tuple[Child, ...]:
        return (*self.applications, self.exporter.child)

    def check(self) -> None:
        """Raise :class:`ChildEndedError` when something ended by itself."""
        if not self.server.is_running:
            raise ChildEndedError(report("PostgreSQL ended", self.server.log_file.read_text(errors="replace")))
        for child in self.children:
            child.check()


@contextlib.contextmanager
def set_up() -> Iterator[Stage]:
    """Start everything; at the end, stop it and remove its files. Passwords go by environment or by file."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]  # PGSERVICE, PGHOSTADDR and so on are meant for other servers, and disturb here
    with contextlib.ExitStack() as stack:
        server = EmbeddedPostgres(settings={"max_connections": MAX_CONNECTIONS}, trust_loopback=False)
        stack.enter_context(server)
        # Below the scratch folder, so that it is removed even when we are killed.
        folder = Path(tempfile.mkdtemp(prefix="demo-", dir=scratch().folder))
        stack.callback(shutil.rmtree, folder)
        passwords = {role: secrets.token_urlsafe(16) for role in (*_APPLICATIONS, _EXPORTER, _CANARY)}
        version = _make_roles(server, passwords)
        urls = {
            name: server.dsn(name, "shop", password=passwords[name]).replace(":", "+psycopg2:", 1)
            for name in _APPLICATIONS
        }
        shop_port = free_port()
        exporter = Exporter(folder, _exporter_settings(folder, server, passwords))
        stack.callback(exporter.end)
        prometheus = Prometheus(folder, lambda: exporter.port)
        stack.callback(prometheus.end)
        environs = {
            "app": {"DATABASE_URL": urls["shop"], "PORT": str(shop_port), "PGLEAK_DIR": str(folder / _POOLS)},
            "neighbours": {"BILLING_DATABASE_URL": urls["billing"], "REPORTS_DATABASE_URL": urls["reports"]},
        }
        applications = []
        for module, environ in environs.items():
            name = "shop" if module == "app" else module
            child = Child(name, folder, [f"pgleak.demo.{module}"], environ)
            stack.callback(child.end)
            applications.append(child)
        yield Stage(server, version, tuple(applications), shop_port, exporter, prometheus)


def _make_roles(server: EmbeddedPostgres, passwords: Mapping[str, str]) -> str:
    """Make a role for each of us and a database; return the server's version."""
    connection = psycopg2.connect(server.dsn(over_socket=True))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for role, password in passwords.items():
                create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
                cursor.execute(create.format(sql.Identifier(role), sql.Literal(password)))
            cursor.execute("CREATE DATABASE shop OWNER shop TEMPLATE template0")
            cursor.execute(sql.SQL("GRANT pg_read_all_stats TO {}").format(sql.Identifier(_EXPORTER)))
            cursor.execute("SELECT split_part(current_setting('server_version'), ' ', 1)")
            (version,) = cursor.fetchone() or ("",)
            return str(version)
    finally:
        connection.close()


def _exporter_settings(folder: Path, server: EmbeddedPostgres, passwords: Mapping[str, str]) -> dict[str, object]:
    """Return the settings but for the listen address, with the passwords in files."""
    for role in (_EXPORTER, _CANARY):
        (folder / f"{role}.password").write_text(passwords[role])
    canary = {"user": _CANARY, "password_file": f"{_CANARY}.password", "interval": _CANARY_INTERVAL}
    target = {
        "name": "demo",
        "dsn": server.dsn(_EXPORTER),
        "password_file": f"{_EXPORTER}.password",
        "canary": canary,
    }
    (folder / _POOLS).mkdir(mode=0o700)
    return {"thresholds": asdict(THRESHOLDS), "pool_dir": _POOLS, "targets": [target]}
