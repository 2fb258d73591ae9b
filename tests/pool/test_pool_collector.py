"""What an application's own /metrics says about its pools."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine

from pgleak.pool import api, metrics
from pgleak.pool.collector import PoolCollector, families
from pgleak.pool.snapshot import EngineSite, Limits, PoolCounters
from pool_support import new_name, url
from state_support import FRAME, a_pool, a_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from pgleak.demo.embedded import EmbeddedPostgres


def values(metrics_: Iterable[Metric]) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(value for key, value in sorted(sample.labels.items()))): sample.value
        for metric in metrics_
        for sample in metric.samples
    }


def test_a_pool_at_work(postgres16: EmbeddedPostgres) -> None:
    name = new_name()
    engine = create_engine(url(postgres16), pool_size=3, max_overflow=2)
    api.instrument(engine, name=name)
    held, detached = engine.connect(), engine.connect()
    detached.detach()
    engine.connect().close()
    found = values(families([api.snapshot()]))
    site = api.snapshot().pools[0].checkouts[0].site
    expected = {
        ("sqlalchemy_pool_connections", (name, "idle")): 1,
        ("sqlalchemy_pool_connections", (name, "used")): 1,
        ("sqlalchemy_pool_connections_max", (name,)): 5,
        ("sqlalchemy_pool_pending_requests", (name,)): 0,
        ("sqlalchemy_pool_checkouts_total", (name,)): 3,
        ("sqlalchemy_pool_connections_opened_total", (name,)): 3,
        ("sqlalchemy_pool_connections_closed_total", (name, "returned")): 0,
        ("sqlalchemy_pool_timeouts_total", (name,)): 0,
        ("sqlalchemy_pool_detached_connections", (name,)): 1,
        ("sqlalchemy_pool_orphaned_connections", (name,)): 0,
        ("sqlalchemy_pool_engines", (name,)): 1,
        ("sqlalchemy_pool_processes", ()): 1,
        ("sqlalchemy_pool_held_seconds_gcount", (name,)): 2,
        ("sqlalchemy_pool_held_seconds_bucket", ("1.0", name)): 2,
        ("sqlalchemy_pool_use_seconds_count", (name,)): 1,
        ("sqlalchemy_pool_create_seconds_count", (name,)): 3,
        ("sqlalchemy_pool_held_connections", ("alive", name, site)): 2,
        ("sqlalchemy_pool_instrumentation_errors_total", ()): 0,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert found["sqlalchemy_pool_oldest_checkout_seconds", (name,)] > 0
    held.close()
    detached.close()
    engine.dispose()


def test_engines_that_only_the_call_used_that_made_them() -> None:
    """By the code that made them, added up over processes that made several; 0 for other places, so that none is a gap."""
    frames = [(replace(FRAME, function=f"make{number}"),) for number in range(25)]
    made = [EngineSite(each, 30, 29 - number) for number, each in enumerate(frames)]
    made += [EngineSite((*each, FRAME), 1, 1) for each in frames]  # by somebody else
    none = replace(a_pool(), made=(EngineSite((FRAME,), 3, 0),))
    snapshot = a_snapshot(replace(a_pool(), made=(*made, EngineSite((FRAME,), 2, 0))))
    found = values(families([snapshot, replace(snapshot, pools=(none,))]))
    unused = {key[1]: value for (metric, key), value in found.items() if metric == "sqlalchemy_pool_unused_engines"}
    assert unused == {
        **{frame.site: 30 - number for number, (frame,) in enumerate(frames[:20])},
        "(other)": 10 + 9 + 8 + 7 + 6,
    }
    found = values(families([replace(snapshot, pools=(none,))]))
    assert found["sqlalchemy_pool_unused_engines", ("shop", FRAME.site)] == 0


def test_what_pools_may_open_by_server_and_application(postgres16: EmbeddedPostgres) -> None:
    """Rules compare it with the server's room, so it says where to and as whom, for each process and each engine."""
    name, application = new_name(), new_name()
    engine = create_engine(url(postgres16, application_name=application), pool_size=3, max_overflow=2)
    api.instrument(engine, name=name)
    engine.connect().close()
    snapshot = api.snapshot()
    elsewhere = replace(
        snapshot, pools=(replace(snapshot.pools[0], server="[::1]:6432/shop", connections_max=float("inf")),)
    )
    found = values(families([snapshot, snapshot, elsewhere]))
    possible = {key: value for (metric, key), value in found.items() if metric.endswith("_server_connections_max")}
    assert possible == {
        (f"127.0.0.1:{postgres16.port}", application, name): 10,
        ("[::1]:6432", application, name): float("inf"),
    }
    engine.dispose()


def test_overdue_connections_by_site(postgres16: EmbeddedPostgres) -> None:
    name = new_name()
    engine = create_engine(url(postgres16))
    api.instrument(engine, name=name, limits=Limits(unproven_site=0))
    with engine.connect():
        snapshot = api.snapshot()
    site = snapshot.pools[0].checkouts[0].site
    assert values(families([snapshot]))["sqlalchemy_pool_overdue_connections", (name, site)] == 1
    counters = replace(snapshot.pools[0].counters, suspects={site: 1})
    after = replace(snapshot, pools=(replace(snapshot.pools[0], checkouts=(), counters=counters),))
    assert values(families([after]))["sqlalchemy_pool_overdue_connections", (name, site)] == 0
    engine.dispose()


def test_processes_are_added_up_and_ended_ones_keep_their_counters(postgres16: EmbeddedPostgres) -> None:
    name = new_name()
    engine = create_engine(url(postgres16))
    api.instrument(engine, name=name)
    with engine.connect():
        snapshot = api.snapshot()
    found = values(families([snapshot, snapshot], {name: PoolCounters(checkouts=5), "gone": PoolCounters(checkouts=7)}))
    assert found["sqlalchemy_pool_checkouts_total", (name,)] == 7
    assert found["sqlalchemy_pool_checkouts_total", ("gone",)] == 7
    assert found["sqlalchemy_pool_connections", (name, "used")] == 2
    assert found["sqlalchemy_pool_processes", ()] == 2
    assert found["sqlalchemy_pool_oldest_checkout_seconds", (name,)] == snapshot.pools[0].checkouts[0].age
    engine.dispose()


def test_twenty_sites_and_the_rest(postgres16: EmbeddedPostgres) -> None:
    engine = create_engine(url(postgres16), pool_size=0)
    api.instrument(engine, name="many")
    held: list[Any] = []
    for number in range(25):
        namespace = {"engine": engine, "held": held, "__name__": f"module{number}"}
        exec(compile("held.append(engine.connect())", f"<site {number}>", "exec"), namespace)
    found = {
        key[1][2]: value
        for key, value in values(families([api.snapshot()])).items()
        if key[0].endswith("held_connections")
    }
    assert len(found) == 21
    assert found["(other)"] == 5
    for connection in held:
        connection.close()
    engine.dispose()


def test_every_metric_of_the_catalogue_is_exposed(postgres16: EmbeddedPostgres) -> None:
    engine = create_engine(url(postgres16))
    api.instrument(engine)
    with engine.connect():
        exposed = [metric.name for metric in families([api.snapshot()])]
    assert sorted(exposed) == sorted(spec.name.removesuffix("_total") for spec in metrics.IN_PROCESS_HALF)
    assert sorted(metric.name for metric in PoolCollector().describe()) == sorted(exposed)
    engine.dispose()


def test_a_scrape_in_both_formats(postgres16: EmbeddedPostgres) -> None:
    registry = CollectorRegistry()
    registry.register(PoolCollector())
    engine = create_engine(url(postgres16))
    api.instrument(engine)
    with engine.connect():
        text = generate_latest(registry).decode()
    assert list(text_string_to_metric_families(text))
    assert generate_openmetrics(registry).endswith(b"# EOF\n")
    promtool = shutil.which("promtool")
    if promtool is not None:
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
    engine.dispose()


def test_a_source_that_fails_does_not_fail_the_scrape() -> None:
    def broken() -> Any:
        raise OSError("gone")

    registry = CollectorRegistry()
    registry.register(PoolCollector(broken))
    assert generate_latest(registry) == b""


def test_a_source_that_cannot_be_called_is_refused_where_it_is_given() -> None:
    """As every scrape would be empty, without a word."""
    with pytest.raises(TypeError, match="takes a function or nothing, not CollectorRegistry"):
        PoolCollector(CollectorRegistry())  # type: ignore[arg-type]


def test_metric_names_keep_the_rules() -> None:
    for spec in metrics.IN_PROCESS_HALF:
        assert spec.name.startswith("sqlalchemy_pool_")
        assert spec.name.endswith("_total") == (spec.kind == "counter"), spec.name
        assert spec.unit != "seconds" or "seconds" in spec.name
        assert spec.help.endswith(".")
    known = {spec.name for spec in metrics.IN_PROCESS_HALF}
    assert {ours for _, ours in metrics.OPENTELEMETRY} <= known


@pytest.mark.parametrize("spec", metrics.IN_PROCESS_HALF, ids=lambda spec: spec.name)
def test_labels_are_the_documented_ones(spec: Any) -> None:
    assert set(spec.labels) <= {"pool", "site", "owner", "state", "reason", "address", "application_name"}
