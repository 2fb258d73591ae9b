"""Reads YAML by name and notes every problem on the way, each with its place, none with a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from pgleak import yamlfile
from pgleak.problem import Problem, unknown_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MERGE = "tag:yaml.org,2002:merge"
_NULL = "tag:yaml.org,2002:null"
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_LONGEST_SHOWN = 80


def compose(text: str, name: str) -> yaml.Node | None:
    """The document as nodes, which keep the spelling of each value; None when empty. Raises yamlfile.YamlError."""
    yamlfile.parse(text, name)  # for its errors, which quote nothing of the file
    loader = yaml.SafeLoader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


class Section:
    """One mapping of the document. Its methods give the wanted value or a default, and note what is wrong.

    Not the one of :mod:`pgleak.settings_schema`, because the format is not ours: here a value counts as it is spelled, so
    that ``yes`` may be a password, and one that is empty as absent.
    """

    def __init__(self, node: yaml.Node | None, path: str, problems: list[Problem], known: Iterable[str] = ()) -> None:
        self._path = path
        self._problems = problems
        self._values: dict[str, yaml.Node] = {}
        if node is None or _is_null(node):
            return
        if not isinstance(node, yaml.MappingNode):
            problems.append(Problem(path, f"must be a mapping of keys to values, not {_kind(node)}", line=_line(node)))
            return
        self._read(node)
        allowed = tuple(known)
        for name, value in list(self._values.items()) if allowed else ():
            if name not in allowed:
                problems.append(Problem(self.at(name), unknown_key(name, allowed), line=_line(value)))

    def __contains__(self, name: str) -> bool:
        return name in self._values and not _is_null(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def at(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def note(self, name: str, message: str) -> None:
        """Adds a problem with a key of this section, unless it has one already, of which this is a consequence."""
        value = self._values.get(name)
        if any(problem.path == self.at(name) for problem in self._problems):
            return
        self._problems.append(Problem(self.at(name), message, line=_line(value) if value else 0))

    def section(self, name: str, known: Iterable[str] = ()) -> Section:
        return Section(self._values.get(name), self.at(name), self._problems, known)

    def text(self, name: str, default: str = "") -> str:
        """A scalar as it is spelled in the file; numbers and the like count as their text."""
        node = self._values.get(name)
        if node is None or _is_null(node):
            return default
        if isinstance(node, yaml.ScalarNode):
            return str(node.value)
        self.note(name, f"must be a single value, not {_kind(node)}")
        return default

    def boolean(self, name: str, *, default: bool) -> bool:
        text = self.text(name)
        if text and text.lower() not in _TRUTH:
            self.note(name, f"must be true or false, not {shown(text)}")
        return _TRUTH.get(text.lower(), default)

    def one_of(self, name: str, allowed: Iterable[str], default: str) -> str:
        """A word out of a fixed set; an empty one counts as absent."""
        text, words = self.text(name), tuple(allowed)
        if not text or text in words:
            return text or default
        self.note(name, f"{shown(text)} is not allowed; use one of {', '.join(words)}")
        return default

    def texts(self, name: str) -> tuple[str, ...] | None:
        """A list of scalars, or None when the key is absent."""
        node = self._values.get(name)
        if node is None or _is_null(node):
            return None
        if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
            return tuple(str(item.value) for item in node.value)
        self.note(name, "must be a list of single values")
        return ()

    def _read(self, node: yaml.MappingNode) -> None:
        for key, value in _pairs(node):
            if not isinstance(key, yaml.ScalarNode):
                self._problems.append(Problem(self._path, "a key must be a single word", line=_line(key)))
            elif key.value in self._values:
                self._problems.append(Problem(self.at(key.value), "stands here twice", line=_line(key)))
            else:
                self._values[key.value] = value
        for source in _merges(node):
            for name, merged in _merged(source, {id(node)}):
                self._values.setdefault(name, merged)


def shown(value: str) -> str:
    """A value in quotes, cut short; only for values that cannot be secrets."""
    return repr(value if len(value) <= _LONGEST_SHOWN else f"{value[:_LONGEST_SHOWN]}...")


def _pairs(node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    return ((key, value) for key, value in node.value if key.tag != _MERGE)


def _merged(node: yaml.Node, seen: set[int]) -> Iterator[tuple[str, yaml.Node]]:
    """What ``<<: *anchor`` or ``<<: [*one, *two]`` brings in, and what those bring in: of one name, the first counts."""
    for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if not isinstance(source, yaml.MappingNode) or id(source) in seen:
            continue
        seen.add(id(source))
        for key, value in _pairs(source):
            if isinstance(key, yaml.ScalarNode):
                yield key.value, value
        for value in _merges(source):
            yield from _merged(value, seen)


def _merges(node: yaml.MappingNode) -> Iterator[yaml.Node]:
    return (value for key, value in node.value if key.tag == _MERGE)


def _is_null(node: yaml.Node) -> bool:
    return bool(node.tag == _NULL)


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
