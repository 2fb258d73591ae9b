"""The shop's Celery worker; the broker is a folder."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery  # type: ignore[import-untyped]
from celery.signals import task_postrun, task_prerun  # type: ignore[import-untyped]
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

import pgleak
from pgleak.pool import statefile

statefile.INTERVAL = 0.2

folder = os.environ["SHOP_BROKER"]
app = Celery("shop", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": folder,
    "data_folder_out": os.environ.get("SHOP_OUTBOX", folder),
    "control_folder": f"{folder}/control",
    "polling_interval": 0.05,
}
app.conf.broker_connection_retry_on_startup = True
app.conf.task_ignore_result = True
app.conf.worker_prefetch_multiplier = 1

engine = create_engine(os.environ["SHOP_DSN"], pool_size=3)
pgleak.instrument(engine, name="shop")
kept: list[Session] = []


@task_prerun.connect  # type: ignore[untyped-decorator]
def say_what_is_done(task: Any, **_: Any) -> None:
    pgleak.set_context(task.name)


@task_postrun.connect  # type: ignore[untyped-decorator]
def clean_up(**_: Any) -> None:
    pgleak.set_context(None)


@app.task  # type: ignore[untyped-decorator]
def order() -> None:
    with Session(engine) as session:
        session.scalar(text("SELECT pg_sleep(0.05)"))


@app.task  # type: ignore[untyped-decorator]
def leak() -> None:
    session = Session(engine)
    kept.append(session)
    session.scalar(text("SELECT 1"))
