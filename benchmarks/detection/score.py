"""What the alerts were worth: found or missed, how early, at what size, and how often for nothing."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from benchmarks.detection.trace import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.detection.engine import Firing
    from benchmarks.detection.trace import Leak, Truth

HOUR = 3600
WEEK = 7 * 86400
WARM_UP = 12 * HOUR
"""Where all applications of a trace start cold, what fires before is not counted, unless a leak begins within 18 h."""

TICKETS = ("PgleakLeakSuspected", "PgleakConnectionGrowth")
PAGES = ("PgleakExhaustionPredicted", "PgleakServerNearlyFull")


@dataclass(frozen=True, slots=True)
class Found:
    """One leak, and when it was spoken of first; ``lead`` is the share of its time that is left then, 0 when missed."""

    lead: float
    hours: float  # from the first leaked connection to the end
    leaked: int | None = None  # connections leaked by then
    evident: int | None = None  # connections leaked when the exporter had three suspects more than before
    exhausts: bool = False


@dataclass(slots=True)
class Score:
    """Sums over traces."""

    tickets: list[Found] = field(default_factory=list)
    pages: list[Found] = field(default_factory=list)  # of leaks that fill the server
    wrong: int = 0  # leaks during which another application was accused
    false_tickets: int = 0
    false_pages: int = 0
    server_weeks: float = 0.0
    application_weeks: float = 0.0

    def add(self, other: Score) -> None:
        self.tickets += other.tickets
        self.pages += other.pages
        self.wrong += other.wrong
        self.false_tickets += other.false_tickets
        self.false_pages += other.false_pages
        self.server_weeks += other.server_weeks
        self.application_weeks += other.application_weeks


def judge(
    truth: Truth,
    firings: Iterable[Firing],
    tickets: Sequence[str] = TICKETS,
    pages: Sequence[str] = PAGES,
    evidence: Sequence[int | None] = (),
) -> Score:
    """Score one trace. An alert that names nobody is right whenever anything leaks; `evidence`: seconds by leak."""
    begun = [
        (leak, evident)
        for leak, evident in itertools.zip_longest(truth.leaks, evidence)
        if truth.exhausted_at is None or leak.start < truth.exhausted_at  # else load had filled the server before
    ]
    truth = replace(truth, leaks=tuple(leak for leak, _ in begun))
    first = min((leak.start for leak in truth.leaks), default=truth.t_end) - truth.t0
    from_second = WARM_UP if truth.cold and first >= 18 * HOUR else 0
    mine = [firing for firing in firings if firing.server == truth.name and firing.begin >= from_second]
    spoken = [firing for firing in mine if firing.alert in tickets]
    paged = [firing for firing in mine if firing.alert in pages]
    score = Score()
    for leak, evident in begun:
        found = _found(truth, leak, [f for f in spoken if _names(f, leak)])
        if evident is not None and leak.leaked:
            found = replace(found, evident=_leaked(leak, evident))
        score.tickets.append(found)
        if truth.exhausted_at:
            score.pages.append(_found(truth, leak, paged))
        score.wrong += any(not _excused(truth, f) and f.begin >= leak.start - truth.t0 for f in spoken)
    score.false_tickets = sum(not _excused(truth, firing) for firing in spoken)
    score.false_pages = sum(firing.begin < first and not _fills(truth, firing) for firing in paged)
    total = truth.t_end - truth.t0 - from_second
    score.server_weeks = total / WEEK
    leaking = {(leak.usename, leak.application_name): leak.start for leak in reversed(truth.leaks)}
    score.application_weeks = sum(
        max(leaking.get(name, truth.t_end) - truth.t0 - from_second, 0) / WEEK for name in truth.applications
    )
    return score


def _names(firing: Firing, leak: Leak) -> bool:
    if not firing.application_name and not firing.usename:
        return True
    return leak.is_of(firing.usename, firing.application_name)


def _excused(truth: Truth, firing: Firing) -> bool:
    """Whether the application leaks by then, or only growth was said of one that grows without end."""
    if any(_names(firing, leak) and firing.begin >= leak.start - truth.t0 for leak in truth.leaks):
        return True
    grows = (firing.usename, shown(firing.application_name)) in truth.growing
    return firing.alert == "PgleakConnectionGrowth" and grows


def _fills(truth: Truth, page: Firing) -> bool:
    """Whether a load that leaks nothing filled the server before the page or within a day of it: then it was right."""
    return (
        not truth.leaks and truth.exhausted_at is not None and page.begin >= truth.exhausted_at - truth.t0 - 24 * HOUR
    )


def _found(truth: Truth, leak: Leak, firings: Sequence[Firing]) -> Found:
    begin = leak.start - truth.t0
    end = min(truth.exhausted_at or truth.t_end, leak.starved_at or truth.t_end) - truth.t0
    hours = (end - begin) / HOUR
    at = min((f.begin for f in firings if begin <= f.begin <= end), default=None)
    if at is None or end <= begin:
        return Found(0.0, hours, None, exhausts=bool(truth.exhausted_at))
    leaked = _leaked(leak, at) if leak.leaked else None
    return Found((end - at) / (end - begin), hours, leaked, exhausts=bool(truth.exhausted_at))


def _leaked(leak: Leak, second: int) -> int:
    """Between two entries a straight line."""
    index = min(second // 1800, len(leak.leaked) - 1)
    before, after = leak.leaked[index], leak.leaked[min(index + 1, len(leak.leaked) - 1)]
    return round(before + (after - before) * (second % 1800) / 1800)


def row(score: Score) -> list[str]:
    """The figures of a table's line; a dash where there is nothing to judge."""
    leads = [found.lead for found in score.tickets]
    paged = [found.lead for found in score.pages]
    sizes, evident = ([size for size in each if size is not None] for each in _sizes(score.tickets))
    return [
        f"{sum(lead > 0 for lead in leads)}/{len(leads)}" if leads else "-",
        f"{statistics.median(leads):.2f}" if leads else "-",
        f"{low(leads):.2f}" if leads else "-",
        f"{statistics.median(sizes):.0f}" if sizes else "-",
        f"{statistics.median(evident):.0f}" if evident else "-",
        str(score.wrong),
        f"{score.false_tickets / score.application_weeks:.3f}" if score.application_weeks else "-",
        f"{score.false_tickets / score.server_weeks:.2f}" if score.server_weeks else "-",
        f"{sum(lead > 0 for lead in paged)}/{len(paged)}" if paged else "-",
        f"{statistics.median(paged):.2f}" if paged else "-",
        f"{score.false_pages / score.server_weeks:.3f}" if score.server_weeks else "-",
    ]


def _sizes(tickets: Sequence[Found]) -> tuple[list[int | None], list[int | None]]:
    return [found.leaked for found in tickets], [found.evident for found in tickets]


HEADINGS = (
    "tickets", "lead", "p10", "leaked", "at evidence", "wrong app", "false/app-week", "false/server-week", "pages", "page lead",
    "false pages/server-week",
)  # fmt: skip


def low(values: Sequence[float]) -> float:
    """The 10th percentile."""
    ordered = sorted(values)
    return ordered[int(0.1 * (len(ordered) - 1))]
