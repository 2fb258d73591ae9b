"""Every test here begins and ends with nothing instrumented."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

import pytest

import servers
from pgleak.pool import api
from pgleak.pool.statefile import StateFile
from pool_support import Truth
from state_support import a_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pgleak.demo.embedded import EmbeddedPostgres
    from pgleak.pool.snapshot import ProcessSnapshot


@pytest.fixture(autouse=True)
def nothing_instrumented() -> Iterator[None]:
    api.uninstrument()
    gc.freeze()  # a full collection, of which there are hundreds here, need not look at what is loaded
    yield
    gc.unfreeze()
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def write(folder: Path) -> Iterator[Callable[..., StateFile]]:
    """Write state files, as living processes would: locked until they are closed."""
    files: list[StateFile] = []

    def write_one(snapshot: ProcessSnapshot | None = None, stamp: float | None = None) -> StateFile:
        file = StateFile(folder)
        file.write(snapshot or a_snapshot(), time.monotonic() if stamp is None else stamp)
        files.append(file)
        return file

    yield write_one
    for file in files:
        if file.is_open:
            file.close()
