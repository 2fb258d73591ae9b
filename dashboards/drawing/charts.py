"""Charts as SVG: lines and areas, heat maps, and bands of states."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import datetime, timezone
from html import escape
from typing import TYPE_CHECKING

from drawing import units

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asking.board import Span

_LEFT, _BOTTOM, _TOP, _RIGHT = 70.0, 20.0, 6.0, 6.0
_GRID, _FAINT = "#2C2E33", "#8E8E9A"


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a chart. ``stack`` is the group in which it is put on top of others; "" for none."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: str
    width: float = 2.0
    fill: float = 0.0  # 0 to 1
    dashed: bool = False
    steps: bool = False
    bars: bool = False
    stack: str = ""


@dataclass(frozen=True, slots=True)
class Canvas:
    """The area of one chart: pixels on one side, time and values on the other."""

    width: float
    height: float
    span: Span
    most: float = 1.0

    def x(self, moment: float) -> float:
        part = (moment - self.span.start) / (self.span.end - self.span.start)
        return _LEFT + min(max(part, 0.0), 1.0) * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _TOP + (1 - value / self.most) * (self.height - _TOP - _BOTTOM)

    def frame(self, rows: Sequence[tuple[float, str]], marks: Sequence[tuple[float, str]]) -> Iterator[str]:
        """Yield grid, axes and annotations; ``rows`` are (y in pixels, label)."""
        for y, label in rows:
            yield f'<line x1="{_LEFT}" x2="{self.width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GRID}"/>'
            yield _label(_LEFT - 6, y + 4, label, "end")
        hours = (self.span.end - self.span.start) / 3600
        every = next((size for size in (1 / 60, 1 / 6, 0.5, 1, 2, 4, 6, 12, 24) if hours / size <= 7), 24) * 3600
        moment = self.span.start - self.span.start % every + every
        while moment <= self.span.end:
            clock = datetime.fromtimestamp(moment, tz=timezone.utc).strftime("%H:%M")
            yield _label(self.x(moment), self.height - 5, clock, "middle")
            moment += every
        for moment, colour in marks:
            x = self.x(moment)
            yield (
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{self.height - _BOTTOM}" stroke="{colour}" '
                'stroke-dasharray="4 3"/>'
                f'<path d="M{x - 5:.1f} {self.height - _BOTTOM} l5 -7 l5 7 z" fill="{colour}"/>'
            )

    def svg(self, parts: Sequence[str]) -> str:
        return f'<svg width="{self.width:.0f}" height="{self.height:.0f}">{"".join(parts)}</svg>'


def lines(series: Sequence[Line], canvas: Canvas, unit: str, marks: Sequence[tuple[float, str]] = ()) -> str:
    """Lines, and areas on top of each other, from 0 up."""
    stacked = list(_stacked(series))
    ticks = units.ticks(max((top for _, points in stacked for _, _, top in points), default=1.0) or 1.0)
    canvas = Canvas(canvas.width, canvas.height, canvas.span, ticks[-1])
    parts = list(canvas.frame([(canvas.y(tick), units.text(tick, unit)) for tick in ticks], marks))
    gap = canvas.span.step(60) * 3
    for line, points in stacked:
        if line.bars:
            parts += [_bar(canvas, line, point) for point in points]
            continue
        for run in _runs(points, gap):
            upper = _path([(canvas.x(moment), canvas.y(top)) for moment, _, top in run], steps=line.steps)
            if line.fill:
                lower = _path([(canvas.x(moment), canvas.y(low)) for moment, low, _ in reversed(run)], steps=False)
                area = f"M{upper}L{lower}Z"
                parts.append(f'<path d="{area}" fill="{line.colour}" fill-opacity="{line.fill}"/>')
            dash = ' stroke-dasharray="8 6"' if line.dashed else ""
            parts.append(f'<path d="M{upper}" fill="none" stroke="{line.colour}" stroke-width="{line.width}"{dash}/>')
    return canvas.svg(parts)


def _bar(canvas: Canvas, line: Line, point: tuple[float, float, float]) -> str:
    moment, low, top = point
    width, height = 3.0, canvas.y(low) - canvas.y(top)
    return (
        f'<rect x="{canvas.x(moment) - width / 2:.1f}" y="{canvas.y(top):.1f}" width="{width}" height="{height:.1f}" '
        f'fill="{line.colour}"/>'
    )


def _stacked(series: Sequence[Line]) -> Iterator[tuple[Line, list[tuple[float, float, float]]]]:
    """Yield each line with its (moment, from, to)."""
    heights: dict[tuple[str, float], float] = {}
    for line in series:
        points = []
        for moment, value in line.points:
            low = heights.get((line.stack, moment), 0.0) if line.stack else 0.0
            points.append((moment, low, low + value))
            if line.stack:
                heights[line.stack, moment] = low + value
        yield line, points


def _runs(points: Sequence[tuple[float, float, float]], gap: float) -> Iterator[list[tuple[float, float, float]]]:
    run: list[tuple[float, float, float]] = []
    for point in points:
        if run and point[0] - run[-1][0] > gap:
            yield run
            run = []
        run.append(point)
    if run:
        yield run


def _path(points: Sequence[tuple[float, float]], *, steps: bool) -> str:
    if steps:
        corners = [(after[0], before[1]) for before, after in itertools.pairwise(points)]
        points = [point for pair in itertools.zip_longest(points, corners) for point in pair if point]
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


@dataclass(frozen=True, slots=True)
class Heat:
    """The colour of the most, and how fast less gets fainter."""

    colour: str
    exponent: float


def heat(
    rows: Sequence[tuple[str, dict[float, float]]],
    canvas: Canvas,
    step: float,
    heat: Heat,
    marks: Sequence[tuple[float, str]],
) -> str:
    """A heat map: rows from the bottom up, each with its numbers by moment."""
    height = (canvas.height - _TOP - _BOTTOM) / max(len(rows), 1)
    most = max((number for _, cells in rows for number in cells.values()), default=1.0) or 1.0
    bottom = canvas.height - _BOTTOM
    parts = []
    for index, (_, cells) in enumerate(rows):
        for moment, number in cells.items():
            if number > 0:
                left, right = canvas.x(moment - step), canvas.x(moment)
                parts.append(
                    f'<rect x="{left:.1f}" y="{bottom - (index + 1) * height:.1f}" width="{max(right - left, 0.5) + 0.3:.1f}" '
                    f'height="{height - 1:.1f}" fill="{heat.colour}" fill-opacity="{(number / most) ** heat.exponent:.2f}"/>'
                )
    labels = [(bottom - (index + 1) * height, label) for index, (label, _) in enumerate(rows)]
    return canvas.svg([*parts, *canvas.frame(labels, marks)])


def bands(rows: Sequence[tuple[str, Sequence[tuple[float, str]]]], canvas: Canvas, step: float) -> str:
    """A band for each row, with its colour by moment."""
    height = (canvas.height - _TOP - _BOTTOM) / max(len(rows), 1)
    parts = []
    labels = []
    for index, (name, cells) in enumerate(rows):
        y = _TOP + index * height
        labels.append((y + height / 2, name))
        for moment, colour in cells:
            x, end = canvas.x(moment), canvas.x(moment + step)
            parts.append(
                f'<rect x="{x:.1f}" y="{y + height * 0.1:.1f}" width="{end - x + 0.4:.1f}" height="{height * 0.8:.1f}" '
                f'fill="{colour}" fill-opacity="0.8"/>'
            )
    return canvas.svg([*canvas.frame(labels, ()), *parts])


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="11" fill="{_FAINT}">{escape(text)}</text>'
