"""The regular expressions of a settings file: for rewriting names, and for lists of applications and users."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pgleak.application_names import DEFAULT_REWRITES, Rewrite
from pgleak.patterns import slow
from pgleak.problem import Problem
from pgleak.settings_schema import Section, show

if TYPE_CHECKING:
    from collections.abc import Sequence

REWRITE_KEYS = ("pattern", "replacement")

DEFAULTS = "defaults"
"""An item of a list of patterns that stands for the built-in list."""

_TOO_SLOW = (
    "takes far too long on some text of 63 characters, which a client may send: avoid repeats within repeats, such as "
    r"(\w+)+$"
)


class Patterns:
    """Reads patterns, and remembers those that are not built in."""

    def __init__(self, top: Section, problems: list[Problem]) -> None:
        self._top = top
        self._problems = problems
        self._own: list[tuple[str, str, re.Pattern[str]]] = []  # where it stands, the method by which it is used

    def rewrites(self, key: str) -> tuple[Rewrite, ...]:
        """Read replacements in application names."""
        rewrites: list[Rewrite] = []
        for path, item in self._top.items(key):
            if item == DEFAULTS:
                rewrites += DEFAULT_REWRITES
                continue
            section = Section(item, path, REWRITE_KEYS, self._problems)
            pattern = section.pattern(section.where("pattern"), section.value("pattern"))
            replacement = section.value("replacement")
            if not isinstance(replacement, str):
                section.note("replacement", "must be text, which may be empty (''); \\1 is the first group")
            elif pattern and (wrong := _problem_with_replacement(pattern, replacement)):
                section.note("replacement", wrong)
            elif pattern:
                rewrites.append(Rewrite(pattern, replacement))
                self._own.append((section.where("pattern"), "search", pattern))
        return tuple(rewrites) if self._top.value(key) is not None else DEFAULT_REWRITES

    def whole_names(self, key: str, builtin: Sequence[re.Pattern[str]] | None = None) -> tuple[re.Pattern[str], ...]:
        """Read patterns that ignore case. Without a built-in list, `defaults` is a pattern like any other."""
        patterns: list[re.Pattern[str]] = []
        for path, item in self._top.items(key):
            if item == DEFAULTS and builtin is not None:
                patterns += builtin
            elif pattern := self._top.pattern(path, item, re.IGNORECASE):
                patterns.append(pattern)
                self._own.append((path, "fullmatch", pattern))
        return tuple(patterns) if self._top.value(key) is not None else tuple(builtin or ())

    def note_slow(self) -> None:
        """Note those that take too long on text that a client may choose."""
        for index in slow([(method, pattern) for _, method, pattern in self._own]):
            path, _, pattern = self._own[index]
            self._problems.append(Problem(path, _TOO_SLOW, show(pattern.pattern)))


def _problem_with_replacement(pattern: re.Pattern[str], replacement: str) -> str:
    try:
        pattern.sub(replacement, "")  # the replacement is read even where nothing matches
    except (re.error, IndexError) as error:
        return f"does not fit the pattern: {error}"
    return ""
