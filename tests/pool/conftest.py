"""Every test here begins and ends with nothing instrumented."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

import servers
from pgleak.pool import api
from pool_support import Truth

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgleak.demo.embedded import EmbeddedPostgres


@pytest.fixture(autouse=True)
def nothing_instrumented() -> Iterator[None]:
    api.uninstrument()
    yield
    errors = api.snapshot().errors
    api.uninstrument()
    api.LEDGER.errors = 0
    gc.collect()
    assert errors == 0, "pgleak made mistakes that it swallowed"


@pytest.fixture
def truth(postgres16: EmbeddedPostgres) -> Iterator[Truth]:
    session = servers.open_connection(postgres16, application_name="truth")
    yield Truth(session)
    session.close()
