"""A leak through a pooler: nobody can say who holds what on the server, and the processes know the line all the same."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import servers
import watching
from holders.processes import url
from pgleak.exporter import Exporter
from pgleak.who.diagnosis import diagnose
from pgleak.who.words import tell

if TYPE_CHECKING:
    from holders.processes import Fleet
    from pgleak.demo.embedded import EmbeddedPostgres

NAME = "pooled-shop"


def test_a_leak_through_a_pooler_is_told_with_its_line(
    postgres16: EmbeddedPostgres, fleet: Fleet, pgbouncer: int
) -> None:
    fleet.start(url(postgres16, NAME, f"127.0.0.1:{pgbouncer}"), "overdue", "overdue")
    settings = watching.settings(watching.target(postgres16, name="db"), pool_dir=fleet.folder)
    exporter = Exporter(settings)

    def told() -> str:
        report = exporter.report(time.monotonic() + 10)
        return " ".join(" ".join(tell(report, diagnose(report))).split())

    try:
        servers.wait_until(lambda: "2 of its 2 connections" in told())
        text = told()
    finally:
        exporter.close()
    assert f"{NAME} leaks on 127.0.0.1:{pgbouncer}: 2 of its 2 connections do not come back" in text
    assert "in __main__:take" in text
    assert "a pooler such as PgBouncer is in between" in text
    assert "Nothing leaks" not in text
