"""The table of the benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.detection.score import HEADINGS, Score, row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def table(scores: Mapping[str, Sequence[tuple[str, Score]]]) -> list[str]:
    """Return Markdown: the families of the first set of alerts, its total, then the totals of the others."""
    lines: list[tuple[str, ...]] = [("", *HEADINGS)]
    first, *others = scores
    families = sorted({family for family, _ in scores[first]})
    lines += [(family, *row(_sum(scores[first], family))) for family in families]
    lines += [(f"**{name}**", *row(_sum(scores[name]))) for name in (first, *others)]
    return list(_markdown(lines))


def _sum(scores: Sequence[tuple[str, Score]], only: str = "") -> Score:
    total = Score()
    for family, score in scores:
        if not only or family == only:
            total.add(score)
    return total


def _markdown(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for index, line in enumerate(lines):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        if index == 0:
            yield "|" + "|".join("-" * (width + 2) for width in widths) + "|"
