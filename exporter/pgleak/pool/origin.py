"""From frames to call sites: which lines of the application stand behind a checkout.

While a connection is handed out only code objects and instruction offsets are kept: they hold no frame, and finding the
line of an instruction is a table walk that most checkouts never need.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from inspect import CO_GENERATOR
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy.orm.session

from pgleak.pool.snapshot import UNKNOWN_SITE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, FrameType

#: Code objects and instruction offsets in turn, the innermost first.
Stack: TypeAlias = "tuple[CodeType | int, ...]"

FRAMES = 4  # reported per checkout
_DEPTHS = range(64)  # frames walked at most until the application's innermost is found
_NOTED = range(FRAMES + 1)  # with one between them that is a library's
_WHOLE = 2 * len(_NOTED)
_REACH = range(24)  # and from there, while its callers are looked for

APPLICATION, LIBRARY, SESSION, PACKAGE, HELPER = range(5)

#: Packages that stand between the application and its connections; an application is none of them, wherever it lives.
_MACHINERY = frozenset(
    [
        "_pytest", "aiohttp", "alembic", "anyio", "asgiref", "billiard", "celery", "click", "concurrent", "ddtrace",
        "fastapi", "flask", "flask_sqlalchemy", "gevent", "greenlet", "gunicorn", "hypercorn", "jinja2", "kombu", "mako",
        "newrelic", "opentelemetry", "pluggy", "prometheus_client", "pytest", "rq", "sentry_sdk", "sqlalchemy", "sqlalchemy_utils",
        "sqlmodel", "starlette", "tenacity", "tornado", "typer", "uvicorn", "uvloop", "waitress", "werkzeug", "wrapt",
    ]
)  # fmt: skip

_SESSION_FILE = sqlalchemy.orm.session.__file__
_SITE_PACKAGES = ("/site-packages/", "/dist-packages/", "\\site-packages\\")
_STDLIB = tuple(
    {
        path.rstrip("/\\") + ("\\" if "\\" in path else "/")
        for path in map(sysconfig.get_path, ("stdlib", "platstdlib"))
        if path
    }
)
#: Where installers put the scripts that start a package, which is the application, or gunicorn with an application inside.
_SCRIPTS = {
    path
    for path in (
        sysconfig.get_path("scripts"),
        sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")),
        os.path.dirname(sys.executable or ""),  # noqa: PTH120 - not where links lead
    )
    if path
}
_OURS = __file__[: -len("origin.py")]
_FILES_KEPT = 20_000
_CODES_KEPT = 2_000
_CALLERS_KEPT = 16  # of each
_LOOKED_FOR = 64  # once in so many times

#: Compiled without a name, by the application and by SQLAlchemy 2.0 (its decorators) alike: each such code is looked at by itself.
_NAMELESS = "<string>"

# file name -> what it is; file name -> its module. Written without a lock: two threads write the same.
_places: dict[str | CodeType, int] = {}
_modules: dict[str | CodeType, str] = {}
# the names of three kinds of files, for `capture`
_libraries: set[str] = set()
_packages: set[str] = set()
_foreign: set[str] = set()  # both of these
_generated: dict[int, CodeType] = {}  # what SQLAlchemy compiles, by its id, which stays its own while the code is kept
# of installed applications, by the id of the innermost code: nothing further out was another application. Found by comparing,
# because a code object's hash is that of all that it contains. Used while no other application was seen at all, and not each
# time, so that one that comes later is seen.
_installed: dict[int, tuple[Stack, ...]] = {}
_alone = True
_asked = count()
_applications: set[str] = set()
_helpers: tuple[str, ...] = ()
_outside = False  # whether a helper was seen that is not installed: no package is the application then


def look_past(helpers: Iterable[str]) -> None:
    """Take these modules, and those in these packages, for what hands connections on: who called them is the place."""
    global _helpers, _outside
    if _helpers != (wanted := tuple(helpers)):
        _helpers, _outside = wanted, False
        _forget()


def capture(frame: FrameType | None) -> tuple[Stack, bool]:
    """The innermost application frame from `frame` outwards with its callers, and whether an ORM session is on the way.

    Most of what a checkout costs, and what it costs is the number of steps. So only the innermost frame is looked for; its
    callers are noted as they are, and which of them are the application's is found out when somebody asks (`resolve`).
    """
    first: Any = frame
    file, session, package = "", False, None
    try:
        while (file := first.f_code.co_filename) in _libraries:
            first = first.f_back
        session = file == _SESSION_FILE
        if session:
            first = first.f_back
            while (
                (file := first.f_code.co_filename) in _libraries
                or file == _SESSION_FILE
                or (file == _NAMELESS and id(first.f_code) in _generated)
            ):
                first = first.f_back
        if file in _packages:  # the application, where it is installed and nothing further out is one
            package = first
            if (
                _alone
                and next(_asked) % _LOOKED_FOR
                and (stack := _noted(first)) in _installed.get(id(first.f_code), ())
                and _awaiter() is None
            ):
                return stack, session
            while (file := first.f_code.co_filename) in _foreign:
                first = first.f_back
    except AttributeError:  # no frame is left: there is none of the application, or a coroutine awaits this
        if package is None or _outside or _awaiter() is not None:
            return _search(frame)
        first = package
    if (first is not package and file not in _applications) or first.f_code.co_flags & CO_GENERATOR:
        return _search(frame)
    stack = _noted(first)
    if len(stack) == _WHOLE:
        if first is package and _alone and len(_installed) < _CODES_KEPT:
            code = id(stack[0])
            _installed[code] = (stack, *_installed.get(code, ()))[:_CALLERS_KEPT]
    elif _awaiter() is not None:  # its callers are there
        return _search(frame)
    return stack, session


def _noted(frame: Any) -> Stack:
    stack: Stack = ()
    for _ in _NOTED:
        stack += frame.f_code, frame.f_lasti
        frame = frame.f_back
        if frame is None:
            break
    return stack


def is_plain(code: CodeType) -> bool:
    """Whether this is an ordinary function of the application's: no generator, in no package."""
    return code.co_filename in _applications and not code.co_flags & CO_GENERATOR


def _search(frame: FrameType | None) -> tuple[Stack, bool]:
    """Like `capture` where its short way fails: files that were not seen before, packages, coroutines, generators.

    Between nested context managers there is a library's frame for each of the application's, so those are not noted here.
    """
    session = hopped = False
    spare: FrameType | None = None
    helper: FrameType | None = None
    for _ in _DEPTHS:
        if frame is None:
            if hopped:
                break
            hopped = True
            frame = _awaiter()
            if frame is None:
                break
        place = classify(frame)
        if place == APPLICATION:
            break
        if place == SESSION:
            session = True
        elif place == PACKAGE and spare is None:
            spare = frame
        elif place == HELPER and helper is None:
            helper = frame
        frame = frame.f_back
    else:
        frame = None
    stack: list[CodeType | int] = []
    frame = frame or (helper if _outside else None) or spare or helper
    for _ in _REACH:
        if frame is None and not hopped:
            hopped = True
            frame = _awaiter()
        if frame is None or len(stack) >= 2 * FRAMES:
            break
        if not stack or classify(frame) in {APPLICATION, PACKAGE}:
            stack += frame.f_code, frame.f_lasti
        frame = frame.f_back
    return tuple(stack), session


def _awaiter() -> FrameType | None:
    """SQLAlchemy runs the body of an async call in a greenlet of its own: the coroutine that awaits it."""
    greenlets = sys.modules.get("greenlet")
    if greenlets is None:
        return None
    current = greenlets.getcurrent()
    if not getattr(current, "__sqlalchemy_greenlet_provider__", False):
        return None
    frame: FrameType | None = current.parent.gr_frame
    return frame


def classify(frame: FrameType) -> int:
    """What kind of file a frame is in, remembered."""
    global _alone, _outside  # noqa: PLW0603 - only ever set to False and True
    key = _key(frame.f_code)
    known = _places.get(key)
    if known is not None:
        return known
    module = _template(frame.f_globals) or frame.f_globals.get("__name__")
    module = module if isinstance(module, str) else UNKNOWN_SITE
    name = frame.f_code.co_filename
    if len(_places) >= (_FILES_KEPT if key is name else _CODES_KEPT):  # a program that compiles ever new code
        _forget()
    _modules[key] = module
    place = _place(name, module)
    if place == APPLICATION and key is not name and module == "__main__" and frame.f_code.co_name == "<module>":
        place = PACKAGE  # what `python -c` begins with, and each process that multiprocessing spawns
    _places[key] = place
    if place == APPLICATION:
        _alone = False
    if place == HELPER and not _is_installed(name):
        _outside = True
    if key is not name:
        if place == LIBRARY:
            _generated[id(key)] = frame.f_code
    elif place == APPLICATION:
        _applications.add(name)
    elif place != SESSION:
        _foreign.add(name)
        (_packages if place == PACKAGE else _libraries).add(name)
    return place


def _forget() -> None:
    for known_ones in (_places, _modules, _libraries, _packages, _foreign, _applications, _generated, _installed):
        known_ones.clear()


def _template(names: dict[str, Any]) -> str:
    """The engine that compiled a template to this: its lines are not the template's. "" for all other code."""
    if "__name__" not in names:
        return "jinja2" if "blocks" in names and "environment" in names else ""
    return "mako" if "_template_uri" in names and "_magic_number" in names else ""


def _key(code: CodeType) -> str | CodeType:
    name = code.co_filename
    return code if name == _NAMELESS else name


def _place(file: str, module: str) -> int:
    if file == _SESSION_FILE:
        return SESSION
    if file.startswith(("<frozen", "<sqlalchemy generated", _OURS)) or module.partition(".")[0] in _MACHINERY:
        return LIBRARY
    if _is_helper(module):
        return HELPER
    if _is_installed(file):
        return PACKAGE
    if module == "__main__" and os.path.dirname(file) in _SCRIPTS:  # noqa: PTH120 - sooner than Path
        return PACKAGE
    return LIBRARY if file.startswith(_STDLIB) else APPLICATION


def _is_helper(module: str) -> bool:
    return any(module == each or module.startswith(f"{each}.") for each in _helpers)


def is_helper(code: CodeType) -> bool:
    """Whether the code takes connections for others."""
    return bool(_helpers) and _is_helper(module_of(code))


def _is_installed(file: str) -> bool:
    return any(part in file for part in _SITE_PACKAGES)


def is_application(code: CodeType) -> bool:
    """Whether the code is the application's, installed or not."""
    place = _places.get(_key(code))
    if place is None:
        module = _imported(code.co_filename)
        if module is None or code.co_filename == _NAMELESS:
            return False  # compiled by a library, which nobody has looked at: SQLAlchemy 2.0 does, and templates are
        place = _place(code.co_filename, module)
    return place in {APPLICATION, PACKAGE}


def module_of(code: CodeType) -> str:
    """The module that the code is in: noted when it ran, else found among what is imported."""
    file = code.co_filename
    module = _modules.get(_key(code))
    if module is None:
        module = _imported(file)
        if module is None:
            return Path(file).stem
        if len(_modules) < _FILES_KEPT:
            _modules[file] = module
    return module


def _imported(file: str) -> str | None:
    return next((name for name, each in sys.modules.copy().items() if getattr(each, "__file__", None) == file), None)
