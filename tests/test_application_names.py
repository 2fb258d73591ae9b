"""The built-in lists: names that are merged, names that are left alone, programs that are never judged."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgleak.application_names import DEFAULT_IGNORED, DEFAULT_REWRITES, rewrite

_UUID = "550e8400-e29b-41d4-a716-446655440000"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "PostgreSQL JDBC Driver",
            "psycopg2",
            "psycopg",
            "Npgsql",
            "pgAdmin 4 - DB:postgres",
            "DBeaver 24.1.0 - Main",
        ),
        *("service-v2", "service-v2.1", "app.3", "app-1.2.3", "python3.11", "worker 1.2.3", "worker-31.2", "api/v1"),
        *("orders-2024", "orders-202401", "orders-20240115", "orders - 2024", "report 20241231"),
        *("api-8080", "api:8080", "db:5432", "postgres-0", "kafka-12", "shard_7", "node-10.0.0.5"),
        *("cafe2024", "cafebabe", "deadbeef", "facade12", "decade2020", "x86_64", "ed25519", "sha256", "base64", "b2b"),
        *("web-html5", "orders-worker", "processor-3", "rapid-12", "rapid1234", "thread pool 3", "multiprocessing-7"),
        *("v1.2.3-4-g1a2b3c4d", "Debezium Streaming", "pglogical apply 16384:1", "12345", "app 12345", "", "(unset)"),
        *("Crédit Agricole", "naïve-bayes", "sensor-αβγ", "a - b", "orders - eu-west-1", "PostgreSQL - 16"),
    ],
)
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    assert rewrite(name, DEFAULT_REWRITES) == name


@pytest.mark.parametrize(
    ("name", "merged"),
    [
        ("worker-1234", "worker-*"),
        ("gunicorn-worker-7", "gunicorn-worker-*"),
        ("ForkPoolWorker-3", "ForkPoolWorker-*"),
        ("worker-2-eu", "worker-*-eu"),
        ("child_12", "child_*"),
        ("pid1234", "pid*"),
        ("app (pid 77)", "app (pid *)"),
        ("app pid=77", "app pid=*"),
        ("app[1234]", "app[*]"),
        ("unicorn worker[3] -c config.rb", "unicorn worker[*] -c config.rb"),
        ("puma: cluster worker 0: 1234 [shop]", "puma: cluster worker * [shop]"),
        ("sidekiq 7.1 shop [0 of 5 busy]", "sidekiq 7.1 shop [*]"),
        ("name:12345", "name:*"),
        ("app-54321", "app-*"),
        ("app@4194303", "app@*"),
        ("gunicorn-12345-140233", "gunicorn-*"),
        ("pgAdmin 4 - CONN:5328271", "pgAdmin 4 - CONN:*"),
        (f"job-{_UUID}", "job-*"),
        (f"job_{_UUID.upper()}", "job_*"),
        (_UUID, "*"),
        (f"Metabase v0.47.2 [{_UUID}]", "Metabase v0.47.2 [*]"),
        ("celery@3f2a9c1b4d5e", "celery@*"),
        ("shop-9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", "shop-*"),
        ("job-1700000000", "job-*"),
        ("build-20240115123456", "build-*"),
        ("orders-7d9f8b6c5-x2x9z", "orders-*"),
        ("orders-api-5c8bd4f98b-kqz7w", "orders-api-*"),
        ("nightly-28512345-k8s9x", "nightly-*"),
        ("shop - 10.0.0.1:54321", "shop"),
        ("shop - [2001:db8::1]:54321", "shop"),
        ("shop - unix:6432", "shop"),
        ("shop - unix(123):6432", "shop"),
        ("shop - unix(123@host-1.example.com):6432", "shop"),
        ("psql - 10.0.0.1:54321", "psql"),
        ("a - b - 10.0.0.1:54321", "a - b"),
        ("worker-1234 - 10.0.0.1:54321", "worker-*"),
    ],
)
def test_what_changes_from_process_to_process_is_merged(name: str, merged: str) -> None:
    assert rewrite(name, DEFAULT_REWRITES) == merged


@pytest.mark.parametrize("length", range(40, 58))
def test_an_address_cut_off_at_63_bytes_is_merged_too(length: int) -> None:
    name = "s" * length
    assert rewrite(f"{name} - 10.11.12.13:54321"[:63], DEFAULT_REWRITES) == name


@settings(deadline=None)
@given(st.text("aworkerpid-_.:[]@# 0123456789abcdef*()", max_size=63))
def test_a_rewritten_name_is_never_longer(name: str) -> None:
    """No name grows, so a series' label is never longer than what the client sent."""
    assert len(rewrite(name, DEFAULT_REWRITES)) <= len(name)


def _ignored(name: str) -> bool:
    return any(pattern.fullmatch(rewrite(name, DEFAULT_REWRITES)) for pattern in DEFAULT_IGNORED)


@pytest.mark.parametrize(
    "name",
    [
        *("psql", "pgcli", "pg_dump", "pg_dumpall", "pg_restore", "psql - 10.0.0.1:54321"),
        *("pgAdmin 4 - DB:postgres", "pgAdmin 4 - CONN:5328271", "pgAdmin III - Query Tool"),
        *("DBeaver 24.1.0 - Main", "DBeaver 24.1.0 - SQLEditor <Script-12.sql>", "DBeaver Ultimate 24.1.0 - Metadata"),
        *("CloudBeaver 24.1.0 - Main", "DataGrip 2024.1.4", "IntelliJ IDEA 2024.1.4", "PyCharm 2023.3"),
        *("TablePlus", "Postico 1.5.20", "HeidiSQL", "Navicat", "DbVisualizer Pro", "Azure Data Studio", "azdata"),
        *("Tableau", "Tableau Desktop 2024.1", f"Metabase v0.50.1 [{_UUID}]", "Mashup Engine", "Power BI", "PowerBI"),
        *("Microsoft Excel", "EXCEL.EXE", "Microsoft Office", "PSQL"),
    ],
)
def test_programs_that_people_leave_open_are_not_judged(name: str) -> None:
    assert _ignored(name)


@pytest.mark.parametrize(
    "name",
    [
        *("psql-loader", "psqlodbc", "billing", "metabolism", "tables", "riders", "excel-import", "postico-sync"),
        *("PostgreSQL JDBC Driver", "pg_basebackup", "Superset", "microsoft-sync", "office", "", "access-control"),
    ],
)
def test_applications_are_judged(name: str) -> None:
    assert not _ignored(name)
