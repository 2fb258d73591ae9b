"""Targets that hang cost a scrape its deadline and not more, however many they are."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

import watching
from pgleak.dsn import Dsn
from pgleak.exporter import Exporter
from pgleak.settings import Canary, Target
from web_support import Client, get, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.demo.embedded import EmbeddedPostgres

FROZEN = 10
SECONDS = 1.0
GLANCE = 2.0
MARGIN = 0.8  # seconds: the one grace of all reads, and a slow machine


@pytest.fixture
def frozen() -> Iterator[Dsn]:
    """Where connections are taken, by the kernel, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Dsn.parse(f"host=127.0.0.1 port={listener.getsockname()[1]} user=u dbname=d")


def test_ten_frozen_targets_with_canaries_are_answered_for_in_time(postgres: EmbeddedPostgres, frozen: Dsn) -> None:
    hanging = [Target(f"frozen{number}", frozen, Canary(frozen)) for number in range(FROZEN)]
    exporter = Exporter(watching.settings(*hanging, watching.target(postgres, "healthy")))
    with contextlib.closing(exporter):
        for _ in range(2):  # the second finds reads and logins under way
            begun = time.monotonic()
            found = watching.scrape(exporter, SECONDS)
            assert time.monotonic() - begun < SECONDS + MARGIN
            assert watching.value(found, "pgleak_up", server="healthy") == 1
            assert [watching.value(found, "pgleak_up", server=each.name) for each in hanging] == [0] * FROZEN


def test_the_page_waits_once_for_targets_that_hang(postgres: EmbeddedPostgres, frozen: Dsn) -> None:
    """Both of its parts look at the targets."""
    hanging = Target("frozen", frozen)
    exporter = Exporter(watching.settings(hanging, watching.target(postgres, "healthy")))
    with contextlib.closing(exporter), serving(exporter) as server:
        begun = time.monotonic()
        text = get(server, "/").text
        assert time.monotonic() - begun < GLANCE + MARGIN
    assert "has not ended yet" in text
    assert "1 of 2 up" in text


def test_many_scrapes_of_one_target_that_hangs_turn_only_each_other_away(
    postgres: EmbeddedPostgres, frozen: Dsn
) -> None:
    exporter = Exporter(watching.settings(Target("frozen", frozen), watching.target(postgres, "healthy")))
    ask = b"GET /probe?target=frozen HTTP/1.1\r\nHost: a\r\nX-Prometheus-Scrape-Timeout-Seconds: 3\r\n\r\n"
    with contextlib.closing(exporter), serving(exporter) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(200)]
        for client in clients:
            client.send(ask)
        assert get(server, "/-/healthy").status == 200
        assert 'pgleak_up{server="healthy"} 1' in get(server, "/probe?target=healthy").text
        answers = [client.answer() for client in clients]
    statuses = Counter(answer.status for answer in answers)
    assert statuses.keys() == {200, 503}
    assert statuses[200] >= 20, "as many as may share one read"
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status == 503)


def test_whoever_opens_the_page_causes_no_failed_scrapes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    gone = Target("gone", Dsn.parse(f"host=127.0.0.1 port={port} user=u dbname=d"))
    with contextlib.closing(Exporter(watching.settings(gone))) as exporter:
        (status,) = exporter.statuses()
        assert status.reason.startswith("unreachable")
        found = watching.scrape(exporter)
        assert watching.total(found, "pgleak_scrape_errors_total", server="gone") == 1
