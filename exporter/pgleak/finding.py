"""What `pgleak check` says about a server or a folder, line by line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Level = Literal["ok", "info", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


def failed(findings: Iterable[Finding]) -> bool:
    """Whether anything has to be mended before this can be watched."""
    return any(finding.level == "fail" for finding in findings)
