"""What one process knows about its pools at one moment: plain frozen data, shared by everything that reads it.

Times called `..._at`, `started`, `opened` and `taken` are Unix seconds (wall clock, comparable with the server's);
`age` and every other duration is in seconds, measured on the monotonic clock up to `taken`.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OwnerState: TypeAlias = Literal["alive", "dead", "unknown"]
OwnerKind: TypeAlias = Literal["thread", "task", "greenlet"]
HolderKind: TypeAlias = Literal["session", "connection"]
#: Who still counts a checked-out connection: its `pool`; nobody, because the holder `detached` it or because the pool
#: was disposed meanwhile (`orphaned`); or the parent process that opened it before a fork (`inherited`).
Place: TypeAlias = Literal["pool", "detached", "orphaned", "inherited"]

#: The `site` of a checkout that no application frame stands behind (made by a library's own thread, for example).
UNKNOWN_SITE = "(unknown)"
#: Where sites beyond a cap are counted together.
OTHER_SITES = "(other)"

USE_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
CREATE_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
HELD_BOUNDS = (1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)


_INNER = ("<lambda>", "<listcomp>", "<setcomp>", "<dictcomp>")


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of the application's code on the way to a checkout."""

    module: str
    function: str
    file: str
    line: int
    end: int = 0  # the last line of what is called there; 0 where Python keeps no such thing (before 3.11)
    is_generator: bool = False

    @property
    def hands_on(self) -> bool:
        """Whether what it takes is for the code that runs it: a generator (a context manager), a comprehension, a lambda."""
        return self.is_generator or self.function.endswith(_INNER)

    @property
    def site(self) -> str:
        """`module:function`, the label; without a line so that a deploy does not churn the series."""
        return f"{self.module}:{self.function}"


@dataclass(frozen=True, slots=True)
class Backend:
    """One server process, as the application sees it. `(server, pid, opened)` joins it with `pg_stat_activity`."""

    pid: int | None  # None where the driver does not tell
    opened: float  # wall time at which the pool had the connection; the server's backend_start is a little earlier
    server: str  # "host:port/database", never with a user or a password; "" where unknown


@dataclass(frozen=True, slots=True)
class Owner:
    """Who checked a connection out."""

    kind: OwnerKind
    name: str
    state: OwnerState
    dead_for: float = 0.0  # seconds since it was first seen dead; 0 while it lives
    runs_jobs: bool = False  # a thread of an executor, which runs what is submitted to it and serves no web request


@dataclass(frozen=True, slots=True)
class Expected:
    """The `expected_hold` block in which a checkout was made: known long work."""

    name: str
    max_seconds: float


@dataclass(frozen=True, slots=True)
class Checkout:
    """One connection that somebody holds now."""

    number: int  # unique in its process, so that a reader recognises the same checkout in the next snapshot
    backend: Backend
    checked_out_at: float
    age: float
    kind: HolderKind
    place: Place
    site: str  # `module:function` of frames[0], UNKNOWN_SITE without frames
    frames: tuple[Frame, ...]  # at most four application frames, the innermost first
    owner: Owner
    standing: tuple[Frame, ...]  # where the owner stands now, the innermost first; () when dead or not to be seen
    context: str  # the endpoint or task that was being served; "" where none was set
    expected: Expected | None


@dataclass(frozen=True, slots=True)
class EngineSite:
    """Where engines are made, and how many of them live."""

    frames: tuple[Frame, ...]  # the innermost first
    engines: int
    unused: int  # of these: hold connections open that only the call that made the engine used, longer than `unproven_site` ago

    @property
    def site(self) -> str:
        return self.frames[0].site if self.frames else UNKNOWN_SITE


@dataclass(frozen=True, slots=True)
class SiteStatistics:
    """How long one site usually holds, from the checkouts that it returned."""

    samples: int
    p99: float  # an upper estimate, seconds; 0 without samples


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts per bucket (not cumulative; the last one is beyond every bound) and the sum of what was observed."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @classmethod
    def of(cls, bounds: tuple[float, ...], values: Iterable[float] = ()) -> Histogram:
        """The histogram of these values; a value on a bound counts below it, as Prometheus has it."""
        counts = [0] * (len(bounds) + 1)
        total = 0.0
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            total += value
        return cls(bounds, tuple(counts), total)

    @property
    def count(self) -> int:
        return sum(self.counts)

    def plus(self, other: Histogram) -> Histogram:
        """Both together. Raises ValueError when the bounds differ (files of another version)."""
        if self.bounds != other.bounds:
            raise ValueError("histograms with different buckets cannot be added")
        counts = tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
        return Histogram(self.bounds, counts, self.sum + other.sum)


def add_counts(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    """The sum per key."""
    total = dict(left)
    for key, count in right.items():
        total[key] = total.get(key, 0) + count
    return total


@dataclass(frozen=True, slots=True)
class PoolCounters:
    """What only grows while a process lives. Counters of an ended process are kept by adding them with `plus`."""

    checkouts: int = 0
    opened: int = 0
    timeouts: int = 0
    wait_seconds: float = 0.0
    closed: Mapping[str, int] = field(default_factory=dict)  # by reason
    suspects: Mapping[str, int] = field(default_factory=dict)  # by site, as the next two
    suspects_returned: Mapping[str, int] = field(default_factory=dict)
    returned_by_gc: Mapping[str, int] = field(default_factory=dict)
    use: Histogram = field(default_factory=lambda: Histogram.of(USE_BOUNDS))
    create: Histogram = field(default_factory=lambda: Histogram.of(CREATE_BOUNDS))

    def plus(self, other: PoolCounters) -> PoolCounters:
        """Both together. Raises ValueError when the histograms' bounds differ."""
        return PoolCounters(
            checkouts=self.checkouts + other.checkouts,
            opened=self.opened + other.opened,
            timeouts=self.timeouts + other.timeouts,
            wait_seconds=self.wait_seconds + other.wait_seconds,
            closed=add_counts(self.closed, other.closed),
            suspects=add_counts(self.suspects, other.suspects),
            suspects_returned=add_counts(self.suspects_returned, other.suspects_returned),
            returned_by_gc=add_counts(self.returned_by_gc, other.returned_by_gc),
            use=self.use.plus(other.use),
            create=self.create.plus(other.create),
        )


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """One pool name: usually one engine, many where engines are made over and over for the same database."""

    name: str  # the `pool` label
    pool_class: str  # "QueuePool"; of the engine seen last
    application_name: str  # what the server shows for its connections; "" where unknown
    server: str  # "host:port/database"
    engines: int  # engines alive under this name
    connections_max: float  # summed over the engines; math.inf where unlimited
    pending: int  # threads or tasks that wait for a connection now
    idle: tuple[Backend, ...]
    checkouts: tuple[Checkout, ...]  # the ones whose place is "pool" are the pool's `used`
    orphans: tuple[Backend, ...]  # living, held by nobody, and in no pool that is in use: dispose() left them behind
    sites: Mapping[str, SiteStatistics]
    counters: PoolCounters
    made: tuple[EngineSite, ...] = ()  # engines that were watched from the moment they were made
    orphaned_at: tuple[tuple[Frame, ...], ...] = ()  # for each orphan, the frames of the checkout that returned it last


def checked_limit(name: str, value: object) -> None:
    """Raise TypeError for what is no number, ValueError for a negative one and NaN. An infinite one is no limit at all."""
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    try:
        sound = float(value) >= 0
    except OverflowError:
        sound = False
    if not sound:
        raise ValueError(f"{name} must be 0 or more, math.inf at most")


@dataclass(frozen=True, slots=True)
class Limits:
    """When a checkout counts as overdue, in seconds; math.inf for never. Raises TypeError and ValueError as it must."""

    dead_owner: float = 5.0  # since its thread was seen to have ended, its task to be done
    alive_owner: float = 30.0  # never earlier than this ...
    alive_factor: float = 5.0  # ... and not before this many times the site's own p99
    unproven_site: float = 60.0  # a living owner at a site that has too few samples for a p99
    samples: int = 20  # how many returns make a site proven

    def __post_init__(self) -> None:
        for name in ("dead_owner", "alive_owner", "alive_factor", "unproven_site"):
            checked_limit(name, getattr(self, name))
        if not isinstance(self.samples, int):
            raise TypeError(f"samples must be a whole number, not {type(self.samples).__name__}")
        if not 0 <= self.samples < 1 << 63:
            raise ValueError("samples must be 0 or more, and less than 2**63")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """Which process this is. `(boot, pid, started)` is never used twice on one machine."""

    pid: int
    started: float  # Unix seconds, from the kernel where it tells, else when pgleak was first used here
    boot: str  # the kernel's boot id, "" where there is none
    host: str
    application_name: str  # of the first pool, "" before there is one


@dataclass(frozen=True, slots=True)
class ProcessSnapshot:
    """Everything one process reports."""

    process: ProcessIdentity
    taken: float
    limits: Limits
    pools: tuple[PoolSnapshot, ...]
    errors: int = 0  # mistakes of our own that were swallowed so that the application did not notice
