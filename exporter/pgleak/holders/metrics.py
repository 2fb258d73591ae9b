"""The join as metrics, for `pgleak serve --pool-dir` beside a server that it watches."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pgleak.holders.claims import HOLDERS
from pgleak.holders.join import REASONS
from pgleak.pool.snapshot import OTHER_SITES
from pgleak.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from pgleak.holders.join import Join

NAMES = 100  # of applications that only processes tell of: a folder is no reason for series without end
SITES = 20  # with a series of their own, per server and application

BACKENDS = Spec(
    "pgleak_backends",
    "gauge",
    "Client connections of applications whose processes report their pools, by who holds them.",
    ("server", "application_name", "holder"),
    "connections",
    note=(
        "`pooled`: idle in a pool; `in_use`: held, and in order; `overdue`: held beyond what is in order for the code that "
        "took it; `owner_dead`: its thread or task has ended; `orphaned`: no pool counts it any more; `unclaimed`: no process "
        "knows it, although all processes of the application report; `unknown`: nobody can be named. The sum is the "
        "application's connections."
    ),
)
OVERDUE = Spec(
    "pgleak_overdue_backends",
    "gauge",
    "Client connections that are held for too long, by the code that took them.",
    ("server", "application_name", "site"),
    "connections",
    note="`site` is `module:function`; the 20 sites that hold most, the rest is `(other)`. `pgleak who` has the line.",
)
UNMATCHED = Spec(
    "pgleak_unmatched_connections",
    "gauge",
    "Connections that processes report and that are on no server watched here, by reason.",
    ("application_name", "reason"),
    "connections",
    note=(
        "`pooler`: their process ids are none, as PgBouncer hands them out; `not_watched`: on a server that is not "
        "watched or could not be read, or just closed; `ambiguous`: two servers fit equally well; `no_pid`: the driver does not tell. "
        "The 100 applications with most of them, the rest is `(other)`."
    ),
)

JOIN: tuple[Spec, ...] = (BACKENDS, OVERDUE, UNMATCHED)
"""What comes with servers and a folder of state files together, in output order."""


def families(join: Join) -> Iterator[Metric]:
    """Fresh families; an application is shown as long as one of its processes reports."""
    holders: Counter[tuple[str, str, str]] = Counter()
    sites: Counter[tuple[str, str, str]] = Counter()
    for held in join.held:
        backend = held.backend
        if held.claim is None and backend.application_name not in join.reported:
            continue
        holders[backend.server, backend.label, held.holder] += 1
        if held.claim is not None and held.claim.verdict is not None and held.claim.checkout is not None:
            sites[backend.server, backend.label, held.claim.checkout.site] += 1
    applications = dict.fromkeys((server, name) for server, name, _ in holders)
    yield BACKENDS.family(
        ((server, name, holder), holders[server, name, holder]) for server, name in applications for holder in HOLDERS
    )
    yield OVERDUE.family(_capped(sites).items())
    yield UNMATCHED.family(_unmatched(join).items())


def _unmatched(join: Join) -> dict[tuple[str, str], int]:
    """By application and reason; those with most of them by name, the rest as one."""
    found: Counter[tuple[str, str]] = Counter()
    weight: Counter[str] = Counter()
    for each in join.unplaced:
        found[each.application_name, each.reason] += each.connections
        weight[each.application_name] += each.connections
    shown: dict[tuple[str, str], int] = {}
    for place, name in enumerate(sorted(join.reported, key=lambda name: (-weight[name], name))):
        for reason in REASONS:
            key = (name if place < NAMES else OTHER_SITES, reason)
            shown[key] = shown.get(key, 0) + found[name, reason]
    return shown


def _capped(sites: Counter[tuple[str, str, str]]) -> Counter[tuple[str, str, str]]:
    shown: Counter[tuple[str, str]] = Counter()
    capped: Counter[tuple[str, str, str]] = Counter()
    for (server, name, site), count in sites.most_common():
        shown[server, name] += 1
        capped[server, name, site if shown[server, name] <= SITES else OTHER_SITES] += count
    return capped
