"""One engine per tenant, used again whenever the tenant comes back: connections grow with the tenants, and none leaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import create_engine, text
from stage import DSN, main, turns

if TYPE_CHECKING:
    from sqlalchemy import Engine

engines: dict[int, Engine] = {}


def engine_of(tenant: int) -> Engine:
    if tenant not in engines:
        engines[tenant] = create_engine(DSN)
    return engines[tenant]


def healthy() -> None:
    """A new tenant comes with each tenth request, up to twenty."""
    for request in turns():
        with engine_of(request % min(1 + request // 10, 20)).connect() as connection:
            connection.execute(text("SELECT :request"), {"request": request})


def healthy_rarely() -> None:
    """Two tenants come all the time, twelve others came once each, among the first requests, and have not come back yet."""
    for request in turns():
        rarely = request % 3 == 2 and request < 36
        with engine_of(2 + request // 3 if rarely else request % 2).connect() as connection:
            connection.execute(text("SELECT :request"), {"request": request})


if __name__ == "__main__":
    main(healthy, healthy_rarely)
