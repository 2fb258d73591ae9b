"""A fleet of processes, ended with the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holders.processes import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "state", [])
    yield fleet
    fleet.close()
