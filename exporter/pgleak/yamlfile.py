"""YAML files, read strictly: a key that stands twice is an error, and no error quotes the file.

The messages of PyYAML show the line that it stumbled over, which may be the one with the password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from pgleak import smallfile

if TYPE_CHECKING:
    from pathlib import Path

_MERGE = "tag:yaml.org,2002:merge"


class YamlError(Exception):
    """A file that cannot be read as YAML. The text is `file:line:column: what is wrong`, and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A key that stands twice in one mapping; the place is the second one's, counted from 1."""

    key: str
    line: int
    column: int
    first_line: int
    above: tuple[str | int, ...] = ()  # the keys and places in lists that lead to the mapping


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a file, with what is wrong in it but does not hinder reading on."""

    data: object
    duplicates: tuple[Duplicate, ...]


def read(path: Path) -> Document:
    """Read a UTF-8 file with one YAML document. Raises YamlError, also when the file cannot be opened."""
    problem = ""
    text = ""
    # Errors are raised outside of the handlers: the originals hold pieces of the file.
    try:
        text = smallfile.content(path, pipe=True).decode("utf-8-sig")
    except OSError as error:
        problem = f"{path}: cannot be read: {error.strerror or type(error).__name__}"
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = f"{path}:{line}: a byte that is not UTF-8"
    if problem:
        raise YamlError(problem)
    return parse(text, str(path))


def parse(text: str, name: str) -> Document:
    """Read YAML text; `name` stands in errors where the file's name would."""
    problem = ""
    data: object = None
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        data = loader.get_single_data()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"{name}:{line}: a control character, which YAML does not allow"
    except yaml.MarkedYAMLError as error:
        problem = f"{name}{_place(error.problem_mark)}: {_without_quotations(error)}"
    except RecursionError:
        problem = f"{name}: nested too deeply"
    if problem or loader is None:
        raise YamlError(problem)
    return Document(data, tuple(loader.duplicates))


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which notes repeated keys and leaves dates as text."""

    def __init__(self, text: str) -> None:
        self.duplicates: list[Duplicate] = []
        self._above: list[str | int] = []
        super().__init__(text)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # A place in a list, the node of a key, or nothing for a key itself and for the top.
        step = index.value if isinstance(index, yaml.ScalarNode) else index
        self._above.append(step if isinstance(step, (str, int)) else "")
        node = super().compose_node(parent, index)
        self._above.pop()
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not where the mapping is constructed: by then `<<` may have been merged into it.
        node = super().compose_mapping_node(anchor)
        assert isinstance(node, yaml.MappingNode)
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if (key.tag, key.value) in first:
                place = (line, key.start_mark.column + 1, first[key.tag, key.value])
                self.duplicates.append(Duplicate(str(key.value), *place, tuple(self._above[1:])))
            first.setdefault((key.tag, key.value), line)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Bring in what ``<<`` names: a mapping's own keys win, then those of the first that is named.

        Not PyYAML's way, whose 6.0.4 lets the last one win, and tells keys apart by where their text lies in memory.
        """
        sources: list[yaml.Node] = []
        for key, value in node.value:
            if key.tag == _MERGE:
                sources += value.value if isinstance(value, yaml.SequenceNode) else [value]
        node.value = [pair for pair in node.value if pair[0].tag != _MERGE]
        super().flatten_mapping(node)  # of which the key `=` is left
        taken = {_identity(key) for key, _ in node.value}
        merged = []
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                raise yaml.constructor.ConstructorError(
                    problem="expected a mapping, or a list of mappings, after <<", problem_mark=source.start_mark
                )
            self.flatten_mapping(source)
            merged += [pair for pair in source.value if _identity(pair[0]) not in taken]
            taken.update(_identity(key) for key, _ in source.value)
        node.value = merged + node.value

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:  # noqa: FBT001, FBT002  PyYAML's own
        misfit = False
        constructed: object = None
        try:
            constructed = super().construct_object(node, deep=deep)
        except (ValueError, KeyError, AttributeError, OverflowError):  # as from `!!int x`
            misfit = True
        if misfit:
            raise yaml.constructor.ConstructorError(
                problem="a value that does not fit its type", problem_mark=node.start_mark
            )
        return constructed


def _identity(key: yaml.Node) -> object:
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


# A date without quotes is meant as text: nothing in a settings file is a point in time.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _place(mark: yaml.Mark | None) -> str:
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""


# Messages that quote a character or the name of a token; all others may quote the file.
_HARMLESS = ("expected ", "found character ", "found unknown escape character ")


def _without_quotations(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "not valid YAML"
    if problem == "second occurrence":
        return "an anchor (&name) stands twice"
    if problem.startswith("but ") and error.context:
        problem = f"{error.context}, {problem}"
    if problem.startswith("expected <block end>"):
        return f"{problem}; the indentation does not fit the lines above"
    if problem.startswith(("mapping values are not allowed", "could not find expected ':'")):
        return f"{problem}; look at the indentation, and put a value with ': ' in quotes"
    if not problem.startswith(_HARMLESS):
        return re.split(r" ['\"]", problem, maxsplit=1)[0]
    if "cannot start any token" not in problem:
        return problem
    return f"{problem}; {'indent with spaces, not tabs' if repr(chr(9)) in problem else 'put the value in quotes'}"
