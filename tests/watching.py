"""Helpers for tests that watch a real server: settings for it, a reader, and what a scrape says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from pgleak.dsn import Dsn
from pgleak.exposition import encode
from pgleak.postgres.reader import Reader
from pgleak.settings import Settings, Target
from servers import query

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric
    from psycopg2.extensions import connection

    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.exporter import Exporter
    from pgleak.postgres.reader import Reading

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def target(server: EmbeddedPostgres, name: str = "db", user: str = "postgres", **options: Any) -> Target:
    return Target(name, Dsn.parse(server.dsn(user)), **options)


def settings(*targets: Target, **options: Any) -> Settings:
    return Settings(targets=targets, **options)


def reader(server: EmbeddedPostgres, user: str = "postgres", **options: Any) -> Reader:
    one = target(server, user=user)
    return Reader(one, settings(one, **options))


def read(reader: Reader, seconds: float = 8.0) -> Reading:
    deadline = time.monotonic() + seconds
    return reader.finish(reader.start(), deadline)


def once(target: Target, seconds: float = 8.0, **options: Any) -> Reading:
    """What one read of a target gives; leaves nothing open."""
    reader = Reader(target, settings(target, **options))
    try:
        return read(reader, seconds)
    finally:
        reader.close()


def own_pid(session: connection) -> int:
    """The process id of the exporter's session, as the server sees it."""
    ((pid,),) = query(session, "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgleak'")
    return int(pid)


def connections(reading: Reading) -> dict[str, dict[str, int]]:
    """Numbers by application name and state, for a reading grouped as by default; users and databases summed."""
    found: dict[str, dict[str, int]] = {}
    for (_, _, name), application in reading.applications.items():
        states = found.setdefault(name, {})
        for state, number in application.states.items():
            states[state] = states.get(state, 0) + number
    return found


def scrape(exporter: Exporter, seconds: float = 8.0, name: str | None = None) -> Samples:
    """Everything that a scrape gives, after a round trip through the text format."""
    return samples(exporter.families(time.monotonic() + seconds, name))


def samples(families: Iterable[Metric]) -> Samples:
    text = encode(families, openmetrics=False).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    """The one sample of this name with these labels, others allowed; a test's failure lists what there is."""
    hits = [number for (metric, given), number in found.items() if metric == name and labels.items() <= set(given)]
    candidates = [dict(given) for metric, given in found if metric == name]
    assert len(hits) == 1, f"{name}{labels}: {len(hits)} of {candidates}"
    return hits[0]


def total(found: Samples, name: str, **labels: str) -> float:
    """The sum of all samples of this name with these labels."""
    return sum(number for (metric, given), number in found.items() if metric == name and labels.items() <= set(given))
