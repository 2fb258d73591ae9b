"""Reading one mapping of a settings file: every problem is noted, and none stops the reading."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from pgleak.problem import Problem, nearest, unknown_key
from pgleak.secret import looks_like_credentials

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

T = TypeVar("T")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_LONGEST_SHOWN = 60
_MAY_HOLD_SECRETS = {"targets", "name", "dsn", "service", "user", "password_file"}
_SECRETIVE = re.compile("pass|pw|secret|token|key", re.IGNORECASE)


class SettingsError(Exception):
    """Settings that cannot be used. The text is the whole report: the source, then each problem on a line."""

    def __init__(self, source: str, problems: Collection[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__(source, self.problems)

    def __str__(self) -> str:
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        return "\n  ".join([f"{self.source}: {count}", *map(str, self.problems)])


def seconds(default: float, low: float, high: float) -> float:
    """Declare a duration of a section's dataclass, with its bounds."""
    declared: float = field(default=default, metadata={"low": low, "high": high})
    return declared


def count(default: int, low: int, high: int) -> int:
    """Declare a whole number of a section's dataclass, with its bounds."""
    declared: int = field(default=default, metadata={"low": low, "high": high})
    return declared


def parse_duration(value: object) -> float | None:
    """Return seconds from a number or from text like `500ms`, `30s`, `1h30m`; None if it is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value) if math.isfinite(value) else None
        except OverflowError:  # a whole number that no float can hold
            return None
    text = value.strip() if isinstance(value, str) else ""
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def format_duration(value: float) -> str:
    """Return the shortest text that `parse_duration` reads as this many seconds."""
    for unit, size in reversed(_UNITS.items()):
        if value >= size and math.isclose(value / size, round(value / size)):
            return f"{round(value / size)}{unit}"
    return f"{value:g}s"


def show(value: object) -> str:
    """Return a value as it may stand in a report: short, on one line, and never a connection string."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number that is too long to show"
    if looks_like_credentials(text):
        return "a connection string (not shown)"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def show_key(key: object) -> str:
    """Return a key as it may stand in a report: a missing `dsn:` makes the connection string itself a key."""
    text = str(key)
    if re.fullmatch(r"[\w.-]{1,40}", text):
        return text
    return "(a key that is not shown)" if re.search(r"[@:/=]", text) else show(text)


def show_path(keys: Iterable[str | int]) -> str:
    """Return the way to a value from the top of the file, such as `targets[0].name`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{show_key(key)}" for key in keys).removeprefix(".")


class Section:
    """One mapping of the file. Each reading method notes problems and then returns its default.

    `elsewhere` says what stands in other mappings: by where that is, the keys.
    """

    def __init__(
        self,
        data: object,
        path: str,
        keys: Collection[str],
        problems: list[Problem],
        elsewhere: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self.path = path
        self._problems = problems
        self._elsewhere = elsewhere
        self._data: Mapping[object, object] = data if isinstance(data, Mapping) else {}
        self.is_mapping = isinstance(data, Mapping)
        if not self.is_mapping:
            shown = show(data) if data is None or isinstance(data, (int, float, list)) else "text"  # a password, maybe
            self._problems.append(
                Problem(path, f"must be a mapping (key: value) with keys out of {', '.join(keys)}", shown)
            )
        for key, value in self._data.items():
            if key not in keys:
                self._note_unknown(key, value, keys)

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def where(self, key: str) -> str:
        """Return the path of a key from the top of the file."""
        return f"{self.path}.{key}" if self.path else key

    def value(self, key: str, default: object = None) -> object:
        """Return what stands there, unchecked; the default also where a key has no value."""
        value = self._data.get(key)
        return default if value is None else value

    def note(self, key: str, message: str, *, hidden: bool = False) -> None:
        """Note a problem with a key's value, which is shown unless it is hidden or the key is missing."""
        shown = show(self._data[key]) if key in self._data and not hidden else ""
        self._problems.append(Problem(self.where(key), message, shown))

    def section(self, key: str, keys: Collection[str]) -> Section:
        """Return the mapping under a key; empty when the key is missing."""
        return Section(self._data.get(key, {}), self.where(key), keys, self._problems, self._elsewhere)

    def numbers(self, key: str, kind: type[T]) -> T:
        """Read a section of durations and whole numbers: the dataclass declares keys, defaults and bounds."""
        declared = fields(kind)  # type: ignore[arg-type]
        section = self.section(key, [each.name for each in declared])
        values: dict[str, Any] = {}
        for each in declared:
            default: Any = each.default
            read = section.count if isinstance(default, int) else section.seconds
            values[each.name] = read(each.name, default, **each.metadata)
        return kind(**values)

    def seconds(self, key: str, default: float, low: float, high: float) -> float:
        """Read a duration in seconds within bounds."""
        if key not in self._data:
            return default
        value = parse_duration(self._data[key])
        if value is not None and low <= value <= high:
            return value
        bounds = f"{format_duration(low)} to {format_duration(high)}"
        self.note(key, f"must be {bounds}: a number of seconds, or text like 500ms, 30s, 5m, 1h, 1d")
        return default

    def count(self, key: str, default: int, low: int, high: int) -> int:
        """Read a whole number within bounds."""
        value = self._data.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.note(key, f"must be a whole number from {low} to {high}")
        return default

    def text(self, key: str, *, hidden: bool = False) -> str:
        """Read text; empty when the key is missing or wrong. What is hidden is for its own reader to check."""
        if key not in self._data:
            return ""
        value = self._data[key]
        text = value.strip() if isinstance(value, str) else ""
        if text and (hidden or text.isprintable()):
            return text
        if value is None or (isinstance(value, str) and not text):
            self.note(key, "must not be empty: give a value, or remove the key")
        elif isinstance(value, str):
            self.note(key, "must be text on one line, without control characters", hidden=hidden)
        else:
            self.note(key, "must be text: put it in quotes", hidden=hidden)
        return ""

    def file(self, key: str, base: Path) -> Path | None:
        """Read the path of a file, relative to `base`; whether it is there is for its own reader to see."""
        text = self.text(key)
        if looks_like_credentials(text):
            self.note(key, "must be a path, not a connection string", hidden=True)
            return None
        return base / text if text else None

    def items(self, key: str) -> Iterator[tuple[str, object]]:
        """Go through a list, each item with its path; nothing when the key is missing or has no value."""
        value = self._data.get(key)
        if value is None:
            return
        if not isinstance(value, list):
            self.note(key, "must be a list", hidden=key in _MAY_HOLD_SECRETS and isinstance(value, str))
            return
        for index, item in enumerate(value):
            yield f"{self.where(key)}[{index}]", item

    def note_item(self, path: str, item: object, message: str, *, hidden: bool = False) -> None:
        """Note a problem with an item of a list."""
        self._problems.append(Problem(path, message, "" if hidden else show(item)))

    def pattern(self, path: str, item: object, flags: int = 0) -> re.Pattern[str] | None:
        """Compile an item or value that must be a regular expression."""
        if not isinstance(item, str) or not item:
            self.note_item(path, item, "must be a regular expression, as text in quotes")
            return None
        problem = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what Python may read otherwise one day is no error today
                return re.compile(item, flags)
        except re.error as error:
            at = "" if error.pos is None else f" at position {error.pos}"
            problem = f"{error.msg}{at}"
        except (OverflowError, RecursionError):
            problem = "too large"
        self.note_item(path, item, f"is not a regular expression: {problem}")
        return None

    def _note_unknown(self, key: object, value: object, keys: Collection[str]) -> None:
        """Note it, with its value where it was surely meant for a key that holds no secret."""
        near = nearest(str(key), keys)
        meant = near and near not in _MAY_HOLD_SECRETS and not _SECRETIVE.search(str(key))
        harmless = meant or isinstance(value, Mapping | list)  # of which nothing but the kind is shown
        message = unknown_key(str(key), keys, self._elsewhere)
        self._problems.append(Problem(self.where(show_key(key)), message, show(value) if harmless else ""))
