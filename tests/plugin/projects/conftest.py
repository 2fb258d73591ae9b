"""The conftest of the small projects: one engine for all tests, disposed of at the end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, create_engine

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    made = create_engine(os.environ["DATABASE_URL"], pool_size=20)
    yield made
    made.dispose()
