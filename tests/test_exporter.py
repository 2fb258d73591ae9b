"""What a scrape says: names and labels from the catalogue, accepted by Prometheus' own tools."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

import watching
from pgleak import metrics
from pgleak.dsn import Dsn
from pgleak.exporter import Exporter
from pgleak.postgres.evidence import KINDS
from pgleak.postgres.reasons import REASONS
from pgleak.settings import Canary, Thresholds
from servers import query, run_sql, wait_until
from web_support import get, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Connect, NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.settings import Target


@pytest.fixture
def exporters() -> Iterator[MakeExporter]:
    make = MakeExporter()
    yield make
    for exporter in make.made:
        exporter.close()


class MakeExporter:
    def __init__(self) -> None:
        self.made: list[Exporter] = []

    def __call__(self, *targets: Target, **options: object) -> Exporter:
        self.made.append(Exporter(watching.settings(*targets, **options)))
        return self.made[-1]


def promtool(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    path = shutil.which("promtool")
    assert path, "promtool is missing: apt install prometheus"
    return subprocess.run([path, *arguments], input=given, capture_output=True, check=False, timeout=60)


def test_promtool_has_nothing_to_say(postgres: EmbeddedPostgres, connect: Connect, exporters: MakeExporter) -> None:
    connect(postgres, application_name="app")
    canary = Canary(Dsn.parse(postgres.dsn()))
    exporter = exporters(
        watching.target(postgres, canary=canary), group_by=("datname", "usename", "application_name", "client_addr")
    )
    watching.scrape(exporter)
    with serving(exporter) as web:
        page = get(web, "/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    assert 'application_name="app"' in page.text
    found = promtool("check", "metrics", given=page.text.encode())
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


def test_openmetrics_is_well_formed_by_the_strict_parser(
    postgres18: EmbeddedPostgres, connect: Connect, exporters: MakeExporter
) -> None:
    connect(postgres18, application_name='quote" back\\slash')
    exporter = exporters(watching.target(postgres18))
    with serving(exporter) as web:
        page = get(web, "/metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert page.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(page.text)}
    assert families["pgleak_idle_seconds"].type == "gaugehistogram"
    assert families["pgleak_scrape_errors"].type == "counter"
    names = {sample.labels["application_name"] for sample in families["pgleak_connections"].samples}
    assert 'quote" back\\slash' in names


def test_every_metric_of_the_server_half_appears_with_its_labels(
    new_postgres: NewPostgres, connect: Connect, exporters: MakeExporter
) -> None:
    server = new_postgres(18)
    run_sql(
        server,
        "CREATE ROLE capped LOGIN CONNECTION LIMIT 7",
        "CREATE DATABASE small TEMPLATE template0 CONNECTION LIMIT 6",
    )
    connect(server, application_name="psql")
    exporter = exporters(
        watching.target(server, canary=Canary(Dsn.parse(server.dsn("capped")))),
        group_by=("datname", "usename", "application_name", "client_addr"),
    )
    families = list(exporter.families(time.monotonic() + 8))
    for spec in metrics.SERVER_HALF:
        name = spec.name.removesuffix("_total") if spec.kind == "counter" else spec.name
        (family,) = [family for family in families if family.name == name]
        assert family.type == spec.kind
        assert family.documentation == spec.help
        expected = set(spec.labels) | ({"client_addr"} if spec.grouped else set())
        assert all(set(sample.labels) - {"le"} == expected for sample in family.samples), spec.name
    known = {spec.name.removesuffix("_total") for spec in metrics.SERVER_HALF}
    assert {family.name for family in families if family.name.startswith("pgleak_")} <= known


def test_the_grouping_setting_shapes_the_labels(
    postgres16: EmbeddedPostgres, connect: Connect, exporters: MakeExporter
) -> None:
    connect(postgres16, application_name="app")
    found = watching.scrape(exporters(watching.target(postgres16), group_by=("application_name",)))
    labels = {frozenset(dict(given)) for (name, given) in found if name == "pgleak_connections"}
    assert labels == {frozenset({"server", "application_name", "state"})}


def test_all_reasons_are_there_from_the_start_at_zero(postgres16: EmbeddedPostgres, exporters: MakeExporter) -> None:
    found = watching.scrape(exporters(watching.target(postgres16)))
    errors = {
        dict(labels)["reason"]: count for (name, labels), count in found.items() if name == "pgleak_scrape_errors_total"
    }
    assert errors == dict.fromkeys(REASONS, 0.0)


def test_histograms_suspects_and_counts_agree(
    new_postgres: NewPostgres, connect: Connect, exporters: MakeExporter
) -> None:
    """The idle histogram holds what is not active, the session histogram everything, suspects are a part of the first."""
    server = new_postgres(18)
    for _ in range(5):
        connect(server, application_name="app")
    query(connect(server, application_name="app"), "BEGIN")
    exporter = exporters(watching.target(server), thresholds=Thresholds(1.0, 1.0, 1.0))

    def suspects() -> bool:
        found = watching.scrape(exporter)
        return watching.total(found, "pgleak_suspect_connections", application_name="app") == 6

    wait_until(suspects, what="six suspects")
    found = watching.scrape(exporter)
    app = {"application_name": "app"}
    assert watching.total(found, "pgleak_connections", **app) == 6
    assert watching.value(found, "pgleak_idle_seconds_gcount", **app) == 6
    assert watching.value(found, "pgleak_session_seconds_gcount", **app) == 6
    assert watching.value(found, "pgleak_idle_seconds_bucket", **app, le="+Inf") == 6
    assert watching.value(found, "pgleak_suspect_connections", **app, evidence="stuck_in_transaction") == 1
    assert watching.value(found, "pgleak_suspect_connections", **app, evidence="never_reused") == 5
    assert watching.value(found, "pgleak_oldest_transaction_seconds", **app) > 1
    oldest = watching.value(found, "pgleak_oldest_idle_seconds", **app)
    assert oldest <= watching.value(found, "pgleak_idle_seconds_gsum", **app) <= 6 * oldest
    assert watching.total(found, "pgleak_connections") == watching.value(found, "pgleak_used_connections")


def test_ignored_applications_count_but_are_not_judged(
    postgres16: EmbeddedPostgres, connect: Connect, exporters: MakeExporter
) -> None:
    connect(postgres16, application_name="psql")
    found = watching.scrape(exporters(watching.target(postgres16)))
    assert watching.total(found, "pgleak_connections", application_name="psql") == 1
    assert watching.value(found, "pgleak_application_ignored", application_name="psql") == 1
    assert not [
        key for key in found if key[0] == "pgleak_suspect_connections" and ("application_name", "psql") in key[1]
    ]


def test_hidden_ages_are_left_out_and_not_zero(
    new_postgres: NewPostgres, connect: Connect, exporters: MakeExporter
) -> None:
    server = new_postgres(16)
    run_sql(server, "CREATE ROLE blind LOGIN", "CREATE ROLE other LOGIN")
    connect(server, user="other", application_name="app")
    found = watching.scrape(exporters(watching.target(server, user="blind")))
    of_app = {(name, dict(labels).get("state")) for name, labels in found if ("application_name", "app") in labels}
    assert of_app == {("pgleak_connections", "(hidden)")}
    assert watching.value(found, "pgleak_stats_visible") == 0


def test_a_grant_that_is_lost_leaves_no_zeros_behind(
    new_postgres: NewPostgres, connect: Connect, exporters: MakeExporter
) -> None:
    """A suspect that turned into 0 because nobody may look any more would resolve an alert."""
    server = new_postgres(18)
    run_sql(server, "CREATE ROLE watcher LOGIN IN ROLE pg_read_all_stats", "CREATE ROLE other LOGIN")
    connect(server, user="other", application_name="app")
    exporter = exporters(watching.target(server, user="watcher"))
    of_app = {"application_name": "app"}
    assert watching.total(watching.scrape(exporter), "pgleak_idle_seconds_gcount", **of_app) == 1
    run_sql(server, "REVOKE pg_read_all_stats FROM watcher")
    found = watching.scrape(exporter)
    assert watching.value(found, "pgleak_connections", **of_app, state="(hidden)") == 1
    assert {name for name, given in found if ("application_name", "app") in given} == {"pgleak_connections"}
    assert (
        len([name for name, given in found if name == "pgleak_connections" and ("application_name", "app") in given])
        == 1
    )


def test_a_server_that_is_down_leaves_errors_and_nothing_stale(
    new_postgres: NewPostgres, exporters: MakeExporter
) -> None:
    server = new_postgres(18)
    exporter = exporters(watching.target(server))
    first = watching.scrape(exporter)
    server.stop()
    found = watching.scrape(exporter)
    assert watching.value(found, "pgleak_up") == 0
    assert watching.value(found, "pgleak_last_success_timestamp_seconds") == watching.value(
        first, "pgleak_last_success_timestamp_seconds"
    )
    gone = {"pgleak_connections", "pgleak_used_connections", "pgleak_usable_connections", "pgleak_suspect_connections"}
    assert not gone & {name for name, _ in found}
    assert sum(count for (name, _), count in found.items() if name == "pgleak_scrape_errors_total") == 1


@pytest.mark.parametrize("broken", ["pool_reading.read", "collect_folder", "join"])
def test_a_fault_of_ours_about_the_pools_leaves_the_servers_on_the_page(
    postgres16: EmbeddedPostgres,
    exporters: MakeExporter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    tmp_path.chmod(0o700)
    exporter = exporters(watching.target(postgres16), pool_dir=tmp_path)
    assert watching.value(watching.scrape(exporter), "pgleak_state_folder_readable") == 1
    monkeypatch.setattr(f"pgleak.exporter.{broken}", lambda *_: 1 / 0)
    for _ in range(2):
        found = watching.scrape(exporter)
        assert watching.value(found, "pgleak_up", server="db") == 1
        assert watching.value(found, "pgleak_state_folder_readable") == 0, "for which there is an alert"
        assert watching.value(found, "pgleak_build_info") == 1
    assert len([text for text in caplog.messages if "the pools are left out: internal error" in text]) == 1


def test_one_target_can_be_asked_for_alone(
    postgres16: EmbeddedPostgres, postgres18: EmbeddedPostgres, exporters: MakeExporter
) -> None:
    exporter = exporters(watching.target(postgres16, "one"), watching.target(postgres18, "two"))
    servers = {
        dict(labels)["server"] for name, labels in watching.scrape(exporter, name="two") if "server" in dict(labels)
    }
    assert servers == {"two"}
    assert not [name for name, _ in watching.scrape(exporter, name="two") if name.startswith("process_")]


def test_statuses_say_up_or_why_not(postgres16: EmbeddedPostgres, exporters: MakeExporter) -> None:
    exporter = exporters(watching.target(postgres16, "up"), watching.target(postgres16, "down", user="nobody_here"))
    up, down = exporter.statuses()  # nobody has scraped yet: reads by itself
    assert (up.up, up.reason) == (True, "")
    assert down.up is False
    assert "nobody_here" in down.reason
    assert up.age is not None
    assert up.age < 10


# The canary


def test_the_canary_logs_in_at_most_once_per_interval(new_postgres: NewPostgres, exporters: MakeExporter) -> None:
    server = new_postgres(18, log_connections="all")
    run_sql(server, "CREATE ROLE canary LOGIN")
    exporter = exporters(watching.target(server, canary=Canary(Dsn.parse(server.dsn("canary")), interval=3600)))
    for _ in range(4):
        watching.scrape(exporter)
    found = watching.scrape(exporter)
    assert watching.value(found, "pgleak_login_success") == 1
    assert watching.total(found, "pgleak_login_failures_total") == 0
    assert server.log_file.read_text().count("connection authorized: user=canary") == 1


def test_the_canary_tells_when_and_why_ordinary_roles_are_refused(
    new_postgres: NewPostgres, connect: Connect, exporters: MakeExporter
) -> None:
    server = new_postgres(16, max_connections=10, reserved_connections=2)
    run_sql(
        server,
        "CREATE ROLE watcher LOGIN IN ROLE pg_read_all_stats, pg_use_reserved_connections",
        "CREATE ROLE canary LOGIN",
        "CREATE ROLE ordinary LOGIN",
    )
    opened = [connect(server, user="ordinary") for _ in range(5)]
    dsn = Dsn.parse(server.dsn("canary"))
    exporter = exporters(watching.target(server, user="watcher", canary=Canary(dsn, interval=0.0)))
    found = watching.scrape(exporter)
    assert watching.value(found, "pgleak_up") == 1
    assert watching.value(found, "pgleak_used_connections") >= watching.value(found, "pgleak_usable_connections")
    assert watching.value(found, "pgleak_login_success") == 0
    assert watching.value(found, "pgleak_login_failures_total", reason="slots_exhausted") == 1
    assert {dict(given)["reason"] for name, given in found if name == "pgleak_login_failures_total"} == set(REASONS)

    opened[0].close()
    opened[1].close()
    wait_until(lambda: watching.value(watching.scrape(exporter), "pgleak_login_success") == 1)


# The catalogue


def test_the_catalogue_keeps_prometheus_naming_rules() -> None:
    for spec in metrics.SERVER_HALF:
        assert spec.name.startswith("pgleak_")
        assert (spec.kind == "counter") == spec.name.endswith("_total"), spec.name
        assert spec.help.endswith("."), spec.name
        assert (spec.unit == "seconds") == ("_seconds" in spec.name), spec.name
    assert len({spec.name for spec in metrics.SERVER_HALF}) == len(metrics.SERVER_HALF)


def test_evidence_is_documented_kind_by_kind() -> None:
    assert all(f"`{kind}`" in metrics.SUSPECTS.note for kind in KINDS)


def test_the_page_in_the_docs_is_what_the_catalogue_says() -> None:
    tool = Path(__file__).parent.parent / "tools" / "metrics_page.py"
    done = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


# Over HTTP


def test_metrics_answer_within_the_scrape_s_own_time_whatever_the_server_does(
    new_postgres: NewPostgres, postgres16: EmbeddedPostgres, exporters: MakeExporter
) -> None:
    server = new_postgres(18)
    exporter = exporters(watching.target(postgres16, "healthy"), watching.target(server, "frozen"))
    with serving(exporter) as web:
        server.freeze()
        started = time.monotonic()
        page = get(web, "/metrics", X_Prometheus_Scrape_Timeout_Seconds="2")
        took = time.monotonic() - started
        server.thaw()
    assert took < 2, "Prometheus would have given up"
    assert 'pgleak_up{server="frozen"} 0' in page.text
    assert 'pgleak_scrape_errors_total{server="frozen",reason="timeout"} 1' in page.text
    assert 'pgleak_up{server="healthy"} 1' in page.text
