"""Which fixture took what: everything in the ledger is numbered, so that a span of numbers says who was at work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from pgleak.pool.ledger import numbers

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Moment:
    """Whatever is taken from now on has a higher number than this."""

    number: int
    session: int

    @classmethod
    def now(cls) -> Moment:
        return cls(next(numbers), Session().hash_key)


@dataclass(slots=True)
class Claim:
    """What a fixture of a wider scope than one test took while it was set up. It may keep that until its scope ends."""

    fixture: str
    scope: str
    first: Moment
    last: Moment
    is_judged: bool  # whether a test that asked for it made the fixture
    is_over: bool = False

    def holds(self, number: int, session: int | None) -> bool:
        """Whether it took this itself, or made the ORM session that took it later."""
        by_session = session is not None and self.first.session < session < self.last.session
        return by_session or self.first.number < number < self.last.number


def claim_of(claims: Iterable[Claim], number: int, session: int | None) -> Claim | None:
    """The innermost fixture that answers for this; None for the test itself."""
    holding = [claim for claim in claims if claim.holds(number, session)]
    return min(holding, key=lambda claim: claim.last.number - claim.first.number, default=None)
