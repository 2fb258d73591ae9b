"""Numbers with their units, as Grafana writes them."""

from __future__ import annotations

import math

_TIMES = ((86400.0 * 7, "weeks"), (86400.0, "days"), (3600.0, "hours"), (60.0, "mins"), (1.0, "s"))


def text(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a value with its unit."""
    if math.isnan(value):
        return "NaN"
    if unit == "s":
        return _time(value, decimals)
    if unit == "percentunit":
        return f"{value * 100:.{1 if decimals is None else decimals}f}%"
    if unit == "bool_yes_no":
        return "Yes" if value else "No"
    suffix = f" {unit.removeprefix('suffix:')}" if unit.startswith("suffix:") else {"ops": " ops/s"}.get(unit, "")
    return f"{_number(value, decimals)}{suffix}"


def _number(value: float, decimals: int | None) -> str:
    value = round(value, 12 if decimals is None else decimals) + 0.0  # there is no -0.0
    if decimals is None:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.{decimals}f}"


def _time(seconds: float, decimals: int | None) -> str:
    for size, name in _TIMES:
        if abs(seconds) >= size:
            number = _number(seconds / size, 1 if decimals is None else decimals)
            return f"{number} {name.removesuffix('s') if number == '1' and name != 's' else name}"
    return f"{seconds * 1000:.3g} ms" if seconds else "0 s"


def ticks(most: float, number: int = 5) -> list[float]:
    """Return round values from 0 to at least ``most``."""
    raw = max(most, 1e-9) / number
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    return [step * count for count in range(math.ceil(most / step - 1e-9) + 1)]
