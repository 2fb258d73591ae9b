"""Two healthy applications beside the leaking one, for contrast: a busy pool, and one that opens and closes."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time

from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

_BILLING_WORKERS = 4


def do_billing(engine: Engine) -> None:
    """Short transactions without end, each on a connection that goes back to the pool."""
    while True:
        with contextlib.suppress(OperationalError), engine.begin() as connection:
            connection.execute(text("SELECT pg_sleep(0.05)"))
        time.sleep(random.uniform(0.05, 0.3))


def write_reports(engine: Engine) -> None:
    """A report takes a second and has a connection of its own, closed at the end."""
    while True:
        with contextlib.suppress(OperationalError), engine.connect() as connection:
            connection.execute(text("SELECT pg_sleep(1)"))
        time.sleep(random.uniform(1, 3))


def main() -> None:
    billing = create_engine(
        os.environ["BILLING_DATABASE_URL"], connect_args={"application_name": "billing"}, pool_size=_BILLING_WORKERS
    )
    reports = create_engine(
        os.environ["REPORTS_DATABASE_URL"], connect_args={"application_name": "reports"}, poolclass=NullPool
    )
    for _ in range(_BILLING_WORKERS):
        threading.Thread(target=do_billing, args=(billing,), daemon=True).start()
    write_reports(reports)


if __name__ == "__main__":
    main()
