"""The SQL statements, one per file, with the reason on top of each."""

from __future__ import annotations

from importlib.resources import files


def load(name: str) -> str:
    """Return the statement in ``name.sql`` without its leading comment."""
    text = files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))
