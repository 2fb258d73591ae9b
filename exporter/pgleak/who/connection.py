"""One connection, as far as each side knows it. Pure, and thousands of them at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, overload

from pgleak.holders.claims import BAD_HOLDERS, GOOD_HOLDERS
from pgleak.pool.reading import STALE_AFTER
from pgleak.who.causes import is_one_piece_of_work
from pgleak.who.unjudged import WORTH_SAYING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgleak.holders.claims import Claim, Holder
    from pgleak.holders.join import Doubt, Held
    from pgleak.pool.snapshot import Checkout, Frame, ProcessIdentity
    from pgleak.pool.suspects import Cause
    from pgleak.postgres.backends import ServerBackend


class Connection(NamedTuple):  # thousands are made at once, five times faster than of a frozen dataclass
    """One connection, as far as each side knows it; what a side does not know is empty, None or "unknown"."""

    server: str
    pid: int | None
    datname: str
    usename: str
    application_name: str
    client_addr: str
    state: str  # of the server; "" when no server was asked
    age: float | None
    unused: float | None  # since its state last changed
    transaction: float | None
    evidence: str  # why the server's view alone takes it for leaked; "" when it does not
    holder: Holder
    doubt: Doubt = ""
    process: ProcessIdentity | None = None
    pool: str = ""
    checkout: Checkout | None = None
    cause: Cause | None = None  # why the pool's view takes it for leaked
    limit: float = 0.0  # how long it may be as it is; 0 where nobody judges that
    silence: float = 0.0  # since its process reported
    is_used: bool = False  # held for too long, and the server has seen it used since it was, and lately

    @property
    def is_suspect(self) -> bool:
        """Whether it looks leaked. Where its process reports, that knows better than a look from outside."""
        holder = self.holder
        if holder in GOOD_HOLDERS:
            return False
        if self.is_busy:
            return False
        if holder == "orphaned" and self.checkout is not None:
            return self.cause is not None  # its holder may still be about to close it
        if self.process is not None or holder == "unclaimed":
            return holder in BAD_HOLDERS
        return bool(self.evidence)

    @property
    def is_busy(self) -> bool:
        """Whether one piece of work takes long, and no transaction waits for it: what is leaked is never used again."""
        if not self.is_used or self.checkout is None:
            return False
        if self.transaction is not None and self.transaction > self.limit:
            is_one_statement = self.state == "active" and self.unused is not None and self.unused > self.limit
            return is_one_statement and is_one_piece_of_work(self.cause, self.checkout)
        return is_one_piece_of_work(self.cause, self.checkout)

    @property
    def since(self) -> float | None:
        """For how long it has been leaked, if it is: since it was taken, or else used last."""
        if self.checkout is not None:
            return self.checkout.age
        if self.evidence == "stuck_in_transaction" and (self.unused is None or self.unused <= self.limit):
            return self.transaction
        return self.unused if self.unused is not None else self.age

    @property
    def unseen(self) -> float:
        """How old it was when it could first be told to be leaked."""
        held = self.checkout
        before = 0.0 if held is None or held.owner.state != "dead" else max(held.age - held.owner.dead_for, 0.0)
        return self.limit + before + (self.silence if self.silence > STALE_AFTER else 0.0)

    @property
    def frames(self) -> tuple[Frame, ...]:
        return self.checkout.frames if self.checkout is not None else ()

    @property
    def end(self) -> str:
        """The SQL that ends it, for a person to run; "" where the process id is not the server's."""
        return f"select pg_terminate_backend({self.pid});" if self.pid is not None and self.state else ""


def end_of(connections: Iterable[Connection]) -> str:
    """The SQL that ends them all at once, for a person to run; "" where none of the process ids is the server's."""
    ended = [each for each in connections if each.end]
    if len(ended) == 1:
        return ended[0].end
    pids = ", ".join(str(each.pid) for each in ended)
    return f"select pg_terminate_backend(pid) from unnest(array[{pids}]) pid;" if pids else ""  # noqa: S608  numbers alone


class Quiet(Sequence[Connection]):
    """The connections of an application of which nothing is to be said; made when somebody asks for one of them."""

    def __init__(self, held: Sequence[Held], at: float, asked: Mapping[str, float]) -> None:
        self._held = held
        self._at = at
        self._asked = asked

    def __len__(self) -> int:
        return len(self._held)

    @overload
    def __getitem__(self, index: int) -> Connection: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Connection]: ...
    def __getitem__(self, index: int | slice) -> Connection | Sequence[Connection]:
        return self._made[index]

    @property
    def pools(self) -> dict[tuple[ProcessIdentity, str], int]:
        """How many belong to each pool."""
        claims = [held.claim for held in self._held if held.claim is not None]
        numbers = [id(claim.pool) for claim in claims]
        one_of_each = dict(zip(numbers, claims, strict=True))
        counts = Counter(numbers) if len(one_of_each) > 1 else dict.fromkeys(numbers, len(numbers))
        return {(claim.process, claim.pool.name): counts[number] for number, claim in one_of_each.items()}

    @property
    def once_used(self) -> int:
        """How many were used once and never again."""
        return sum(held.holder == "pooled" and held.backend.evidence == "never_reused" for held in self._held)

    @cached_property
    def _made(self) -> tuple[Connection, ...]:
        return worst_first([of_backend(held, self._at, self._asked) for held in self._held])


def is_quiet(held: Held) -> bool:
    """Whether a pool has it, or somebody who took it a moment ago."""
    claim = held.claim
    if claim is None or held.holder not in GOOD_HOLDERS:
        return False
    return claim.checkout is None or claim.checkout.age < WORTH_SAYING


def worst_first(connections: Sequence[Connection]) -> tuple[Connection, ...]:
    """Suspects first, the longest leaked on top."""
    suspects = [each for each in connections if each.is_suspect]
    others = [each for each in connections if not each.is_suspect] if suspects else list(connections)
    suspects.sort(key=lambda each: (-(each.since or 0), each.pid or 0))
    others.sort(key=lambda each: (-(each.since or 0), each.pid or 0))
    return (*suspects, *others)


def of_backend(held: Held, at: float, asked: Mapping[str, float]) -> Connection:
    backend, holder, claim, doubt = held
    server, pid, started, datname, usename, _, label, address, state, unused, transaction, evidence, limit = backend
    age = None if started is None else at - started if at > started else 0.0
    process, pool, checkout, cause, silence, is_used = None, "", None, None, 0.0, False
    if claim is not None:
        process, owner, _, _, checkout, verdict, silence, limit, _ = claim
        pool = owner.name
        if verdict is not None:
            cause, is_used = verdict.cause, _is_used(claim, backend, asked.get(server, at))
    fields = (
        server, pid, datname, usename, label, address, state, age, unused, transaction, evidence, holder, doubt,
        process, pool, checkout, cause, limit, silence, is_used,
    )  # fmt: skip
    return tuple.__new__(Connection, fields)  # in two thirds of the time that the class itself takes


def _is_used(claim: Claim, backend: ServerBackend, asked: float) -> bool:
    """Whether the server has seen it used when it was overdue already, no longer ago than it may be held."""
    held = claim.checkout
    if held is None or backend.unused is None or claim.holder == "owner_dead":
        return False
    if backend.state == "active":
        return True
    return backend.unused <= claim.limit < asked - backend.unused - held.checked_out_at


def of_claim(claim: Claim, server: str, at: float) -> Connection:
    database = claim.backend.server.rpartition("/")[2]
    age = max(at - claim.backend.opened, 0.0)
    name = claim.pool.application_name
    pid, inside = claim.backend.pid, _inside(claim)
    return Connection(server, pid, database, "", name, "", "", age, None, None, "", claim.holder, "", *inside)


def _inside(claim: Claim) -> tuple[ProcessIdentity, str, Checkout | None, Cause | None, float, float]:
    """What a process says of a connection: the last fields of one, from `process` on."""
    cause = claim.verdict.cause if claim.verdict is not None else None
    return claim.process, claim.pool.name, claim.checkout, cause, claim.limit, claim.silence
