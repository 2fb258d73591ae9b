"""A command line whose errors never repeat a password, wherever it was put."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pgleak.problem import nearest
from pgleak.secret import looks_like_dsn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HIDDEN = "(not shown)"
_DSN_ADVICE = "did you mean --dsn?"
_PASSWORD_ADVICE = "a password belongs in PGPASSWORD, ~/.pgpass or --password-file"  # noqa: S105  advice
_PASSWORD_OPTION = re.compile(r"-[Wp]|--?p(wd?|a?s+[wor]*d?)", re.IGNORECASE)  # mistyped ones too
_NAME = re.compile(rf"--password-f[ile]*|{_PASSWORD_OPTION.pattern}|--[a-z][a-z_-]*|-\w", re.IGNORECASE)
_CREDENTIALS = re.compile(r":.*@|^\w+\s*=", re.DOTALL)  # user:password@host, or key=value


class UsageError(Exception):
    """The command line or the settings are wrong."""


class Parser(argparse.ArgumentParser):
    """Tells what is wrong without repeating what may be a secret; takes no abbreviations of options."""

    def __init__(self, *, given: Sequence[str] = (), **options: Any) -> None:
        # An abbreviation would take `--password X` for the file X, and say that there is no such file.
        super().__init__(**options, allow_abbrev=False)
        self.given = given

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As in argparse, but a command refuses by itself what it does not know: its usage is the one that helps."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [name for name in self._option_string_actions if name.startswith("--")]
            near = nearest(next((each for each in unknown if each.startswith("--")), "").partition("=")[0], options)
            advice = next((what for _, what in _secrets(unknown)), f"did you mean {near}?" if near else "")
            self.error("; ".join(filter(None, [f"unrecognized arguments: {' '.join(_names(unknown))}", advice])))
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit with code 2."""
        super().error(safe(message, self.given))


def safe(text: str, arguments: Sequence[str]) -> str:
    """Return an error text without those of the arguments that look like connection strings or passwords, and advice."""
    hidden = text
    advice = ""
    for secret, what in sorted(_secrets(arguments), key=lambda each: -len(each[0])):
        # A path swallows one of two slashes, and a message may quote its argument.
        for form in (secret, str(Path(secret)), repr(secret)[1:-1], repr(str(Path(secret)))[1:-1]):
            if form in hidden:
                hidden, advice = hidden.replace(form, _HIDDEN), what
    return f"{hidden}; {advice}" if advice and advice not in hidden else hidden


def no_dsn(text: str) -> str:
    """Take an argument that is a name. Raises ArgumentTypeError for a connection string."""
    if looks_like_dsn(text):
        raise argparse.ArgumentTypeError(f"a connection string does not belong here; {_DSN_ADVICE}")
    return text


def path(text: str) -> Path:
    """Take an argument that is a path. Raises ArgumentTypeError for nothing, and for a connection string."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(no_dsn(text))


def _names(unknown: Sequence[str]) -> Iterator[str]:
    """What may be shown of arguments that nobody knows: options, up to where a value may begin."""
    before = ""
    for argument in unknown:
        found = None if _PASSWORD_OPTION.fullmatch(before) else _NAME.match(argument)
        name, value = (found.group(), argument[found.end() :]) if found else ("", argument)
        yield f"{name}={_HIDDEN}" if name and value.startswith("=") else f"{name}{_HIDDEN}" if value else name
        before = argument


def _secrets(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each argument that nobody may see, with advice on where it belongs."""
    before = ""
    for argument in arguments:
        option, _, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
        if value and _PASSWORD_OPTION.fullmatch(option or before):
            yield value, _PASSWORD_ADVICE
        elif looks_like_dsn(value) or _CREDENTIALS.search(value):
            yield value, _DSN_ADVICE
        before = argument
