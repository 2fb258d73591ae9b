"""What a person reads: what was left, where it was taken, what holds it, what to change. One screen, 80 columns."""

from __future__ import annotations

import linecache
import re
import sysconfig
from collections import Counter
from dataclasses import replace
from pathlib import Path
from textwrap import fill, shorten
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgleak.pool.snapshot import Frame
    from pgleak.testing.leftovers import Leftover

_SHOWN = 3  # a screen has room for so many
_WIDTH = 79
_LINE = _WIDTH - 6  # of the code
_PURE = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})

_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^@\s]*@")  # in a URL that stands in the code

_FIXES = {
    "connection": "close it on every path, best by a block: `with engine.connect() as connection:`.",
    "session": (
        "end it on every path, best by a block: `with Session(engine) as session:`. A scoped_session is ended by "
        "`Session.remove()`."
    ),
    "engine": (
        "call `engine.dispose()` where its work is done, after the `yield` if a fixture made it; or make one engine for "
        "all tests, in a fixture with scope='session'."
    ),
}
_ASYNC_FIXES = {
    "connection": "close it on every path, best by a block: `async with engine.connect() as connection:`.",
    "session": "end it on every path, best by a block: `async with AsyncSession(engine) as session:`.",
    "engine": _FIXES["engine"].replace("call", "call `await", 1).replace("`await `", "`await "),
}


def describe(leftovers: Sequence[Leftover], root: Path, *, fixture: str = "") -> str:
    """The message about what a test, or a fixture of a wider scope, has left behind. Files are named from `root` on."""
    groups = Counter(replace(each, number=0) for each in sorted(leftovers, key=lambda each: each.number))
    head = f"{_counted(leftovers)} left behind"
    frame = next((each.frames[0] for each in groups if each.frames), None)
    if fixture:
        head += f" by the {fixture}, not by this test"
    elif frame is not None:  # the first line is all that the summary shows
        head += f": {_place(frame, root)}"
    parts = [fill(head, _WIDTH)]
    (first, times), *others = groups.items()
    parts.append(_one(first, times, root))
    if others:
        parts.append("\n".join(_briefly(number, *other, root) for number, other in enumerate(others[: _SHOWN - 1], 2)))
    if len(groups) > _SHOWN:
        places = ", ".join(_place(each.frames[0], root) for each in list(groups)[_SHOWN:] if each.frames)
        parts.append(fill(f"And more, taken at: {shorten(places, 140, placeholder=' ...')}", _WIDTH))
    name = frame.site if frame is not None else leftovers[0].kind
    if fixture:
        parts.append(f"If that is meant, say so in the ini file:\n   pgleak_allow = {name}")
    else:
        parts.append(f'If that is meant, say so:\n   @pytest.mark.pgleak(allow="{name}")')
    return "\n\n".join(parts)


def _counted(leftovers: Sequence[Leftover]) -> str:
    words = []
    for kind in ("connection", "session", "engine"):
        number = sum(each.kind == kind for each in leftovers)
        if number:
            words.append(f"{number} {kind}{'s' if number > 1 else ''}")
    return " and ".join(words) if len(words) < 3 else f"{words[0]}, {words[1]} and {words[2]}"


def _one(leftover: Leftover, count: int, root: Path) -> str:
    lines = _wrapped("1. ", f"{_what(leftover, count)}:")
    if leftover.frames:
        lines += ["", *_source(leftover.frames[0], root)]
    for caller in leftover.frames[1:]:
        if not caller.file.startswith(_PURE):
            lines += [f"      called at {_place(caller, root)} in {caller.function}"]
    lines.append("")
    for label, text in (
        ("Held by", _holder(leftover, root)),
        ("Kept by", " <- ".join(leftover.keeper)),
        ("Not saved", leftover.unsaved),
        ("Fix", _fix(leftover)),
    ):
        if text:
            lines += _wrapped(f"   {label}: ", text)
    return "\n".join(lines)


def _briefly(number: int, leftover: Leftover, count: int, root: Path) -> str:
    """All but the first in a line or two: the screen is full, and as a rule the same is wrong with them."""
    place = f" at {_place(leftover.frames[0], root)}" if leftover.frames else ""
    return "\n".join(_wrapped(f"{number}. ", f"{_what(leftover, count)}{place}"))


def _wrapped(label: str, text: str) -> list[str]:
    return fill(label + text, _WIDTH, subsequent_indent="   ", break_long_words=False, break_on_hyphens=False).split(
        "\n"
    )


def _what(leftover: Leftover, count: int) -> str:
    times = f", {count} times" if count > 1 else ""
    if leftover.kind == "engine":
        number = f"{leftover.connections} connection{'s' if leftover.connections > 1 else ''}"
        if leftover.collected:
            return (
                f"an engine of {leftover.pool}{times}, never disposed: only the garbage collector closed {number}, made"
            )
        return f"an engine of {leftover.pool}{times}, never disposed: it keeps {number} open, made"
    article = f"a {leftover.kind} of {leftover.pool}{times}"
    if leftover.collected:
        return f"{article}, never closed: only the garbage collector gave it back, taken"
    if leftover.place == "detached":
        return f"{article}, detached from its pool and never closed, taken"
    if leftover.place == "orphaned":
        return f"{article}, still out after its engine was disposed, taken"
    return f"{article}, still checked out, taken"


def _source(frame: Frame, root: Path) -> list[str]:
    line = _PASSWORD.sub(r"\1***@", linecache.getline(frame.file, frame.line).strip())
    place = f"   at {_place(frame, root)} in {frame.function}"
    return [place, f"      {line if len(line) <= _LINE else line[: _LINE - 4] + ' ...'}"] if line else [place]


def _place(frame: Frame, root: Path) -> str:
    try:
        file = str(Path(frame.file).relative_to(root))
    except ValueError:
        file = frame.file
    return f"{file}:{frame.line}"


def _holder(leftover: Leftover, root: Path) -> str:
    owner = leftover.owner
    if owner is None or leftover.is_mine or leftover.collected:
        return ""
    if owner.state == "dead":
        return f"nobody: the {owner.kind} {owner.name!r} that took it has ended"
    now = f", which is now at {_place(leftover.standing[0], root)}" if leftover.standing else ", which is still alive"
    return f"the {owner.kind} {owner.name!r}{now}"


def _fix(leftover: Leftover) -> str:
    owner = leftover.owner
    if owner is not None and owner.state == "alive" and not leftover.is_mine and not leftover.collected:
        return f"stop the {owner.kind} and wait for its end before the test is over."
    fixes = _ASYNC_FIXES if leftover.is_async else _FIXES
    fix = fixes[leftover.kind]
    if any("traceback" in word or "exception" in word for word in leftover.keeper):
        fix += " What was raised keeps the frames it went through alive, and all that was in them."
    return fix
