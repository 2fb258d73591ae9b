"""What an application calls: watch engines, know what is held, say what is known to take long."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy.engine import Engine
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.pool import ConnectionPoolEntry

from pgleak import variables
from pgleak.pool import checkouts, drivers, events, marks, owner, statefile
from pgleak.pool.ledger import LEDGER
from pgleak.pool.limits import limits_from_environment
from pgleak.pool.monitor import Monitor
from pgleak.pool.origin import capture, look_past
from pgleak.pool.snapshot import Limits
from pgleak.pool.survey import survey

if TYPE_CHECKING:
    from types import FrameType

    from sqlalchemy.ext.asyncio import AsyncEngine

    from pgleak.pool.snapshot import ProcessSnapshot
    from pgleak.pool.suspects import Verdict

    AnyEngine: TypeAlias = Engine | AsyncEngine

__all__ = ["LEDGER", "MONITOR", "instrument", "is_instrumented", "snapshot", "uninstrument"]

MONITOR = Monitor(LEDGER)

_READ = f"what pgleak reads in an application is {', '.join(variables.OF_APPLICATIONS)}"
_log = logging.getLogger("pgleak.pool")


class _State:
    """What `instrument()` has changed, so that `uninstrument()` can change it back."""

    lock = threading.RLock()
    original_init: Any = None  # Engine.__init__, while every engine is watched
    default_name: str | None = None  # the `application_name` given for every engine
    default_pool: str | None = None  # the `name`
    asked = False  # the environment
    limits_known = False  # given in code, or by the environment
    helpers_known = False  # likewise
    follows_forks = False
    observing = False  # `observe()` alone: no thread, no file


_state = _State()


def instrument(
    engine: AnyEngine | None = None,
    *,
    name: str | None = None,
    application_name: str | None = None,
    limits: Limits | None = None,
    on_suspect: Callable[[Verdict], None] | None = None,
    helpers: Iterable[str] | None = None,
) -> None:
    """Watch an engine, or without one every engine, those that exist and those to come.

    `name` is the `pool` label, by default the engine's host:port/database, behind the application's name and a slash where
    that is known beforehand; for every engine it is name/host:port/database. So neither two databases nor two applications
    on one become one pool. `application_name` is what the server is
    told where the user gave none, by default `name`, else PGLEAK_APPLICATION_NAME, else the program's name. `limits`
    and `on_suspect` hold for the whole process; the callback runs on pgleak's own thread, once per suspect. Without
    `limits` those of the environment hold, PGLEAK_DEAD_OWNER and so on. `helpers` are modules and packages of the
    application that take connections for others, a repository perhaps: the place is then who called them; by default
    those of PGLEAK_HELPERS, separated by commas.
    Calling it again changes what is given anew and nothing else; connections that are open keep their name. Raises
    TypeError for an argument of another type, and has changed nothing then.
    """
    sync_engine = None if engine is None else _sync_engine(engine)
    _check("name", name, str, "a string")
    _check("application_name", application_name, str, "a string")
    _check("limits", limits, Limits, "pgleak.Limits, such as pgleak.Limits(dead_owner=10)")
    _check("on_suspect", on_suspect, Callable, "a function of one argument, the verdict")
    modules = None if helpers is None else _modules(helpers)
    usual = _of_environment(told=limits is not None)
    with _state.lock:
        _install(modules)
        _state.observing = False
        if limits is not None or not _state.limits_known:
            LEDGER.limits = limits or usual or LEDGER.limits
            _state.limits_known = bool(limits or usual)
        if on_suspect is not None:
            MONITOR.reporter.on_suspect = on_suspect
        if sync_engine is None:
            _state.default_pool = name or _state.default_pool
            _watch_all(application_name)
        else:
            _watch(sync_engine, name, application_name)
            _adopt_open_connections([sync_engine])
        checkouts.forget()


def _of_environment(*, told: bool) -> Limits | None:
    """The limits that it gives, once, where they were not told. Not under the lock: a log's handler may want a connection."""
    with _state.lock:
        is_first, _state.asked = not _state.asked, True
    if not is_first:
        return None
    for remark in variables.unread(os.environ, _READ):
        _log.warning("%s", remark)
    return None if told else limits_from_environment()


def observe() -> None:
    """Keep the ledger of every engine and nothing else: no thread, no file, until somebody calls `instrument`."""
    with _state.lock:
        _state.observing = _state.observing or not any(pool.engines for pool in LEDGER.pools.copy().values())
        _install()
        _watch_all(None)
        checkouts.forget()


def _install(helpers: Iterable[str] | None = None) -> None:
    if helpers is not None or not _state.helpers_known:
        look_past(os.environ.get(variables.HELPERS, "").replace(",", " ").split() if helpers is None else helpers)
        _state.helpers_known = True
        for pool in LEDGER.pools.copy().values():
            pool.look_past_helpers()
    _follow_forks()
    owner.adapt()
    checkouts.install()


def uninstrument(engine: AnyEngine | None = None) -> None:
    """Stop watching an engine, or everything. SQLAlchemy is then as it was."""
    with _state.lock:
        if engine is None:
            _unpatch_engine()
            watched = [each for pool in LEDGER.pools.copy().values() for each in pool.engines.copy().values()]
        else:
            found = LEDGER.watched(_sync_engine(engine))
            watched = [found] if found is not None else []
        for each in watched:
            events.detach(each)
        if _state.original_init is None and not any(pool.engines for pool in LEDGER.pools.copy().values()):
            checkouts.uninstall()
            MONITOR.stop()
            statefile.stop()
            LEDGER.pools.clear()
            MONITOR.reporter.on_suspect = None
            LEDGER.limits = Limits()
            _state.observing = False
            _state.asked = _state.limits_known = _state.helpers_known = False
            look_past(())
        checkouts.forget()


def snapshot() -> ProcessSnapshot:
    """What this process holds now, as plain data. Safe in any thread."""
    return survey(LEDGER)


def is_instrumented(engine: AnyEngine | None = None) -> bool:
    """Whether this engine is watched, or without one, whether every new engine will be."""
    if engine is None:
        return _state.original_init is not None
    return LEDGER.watched(_sync_engine(engine)) is not None


def _sync_engine(engine: AnyEngine) -> Engine:
    inner = getattr(engine, "sync_engine", engine)
    if not isinstance(inner, Engine):
        raise TypeError(f"pgleak.instrument() takes an Engine, an AsyncEngine or nothing, not {type(engine).__name__}")
    while isinstance(inner, OptionEngine):  # of execution_options(): another engine's pool, dialect and events
        inner = inner._proxied  # noqa: SLF001 - there is no public way
    return inner


def _check(option: str, value: object, kind: Any, wanted: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"pgleak.instrument({option}=...) takes {wanted}, not {type(value).__name__}")


def _modules(helpers: object) -> tuple[str, ...]:
    given = [None] if isinstance(helpers, str) or not isinstance(helpers, Iterable) else list(helpers)
    names = tuple(each for each in given if isinstance(each, str))
    if len(names) < len(given):
        raise TypeError('pgleak.instrument(helpers=...) takes names of modules, such as ["shop.repository"]')
    return names


def _watch(engine: Engine, name: str | None, application_name: str | None, called: str | None = None) -> None:
    """`called` is what the server is told where no `application_name` was ever given, by default `name`."""
    watched = LEDGER.watched(engine)
    if watched is not None:
        application_name = application_name or watched.given_name
        if name in {None, watched.ledger.name} and application_name == watched.given_name:
            return
        name = name or watched.ledger.name
        events.detach(watched)
    pool_name = name or drivers.pool_name(engine.url, application_name)
    new = events.attach(engine, LEDGER, pool_name, application_name or called or name or drivers.program_name())
    new.given_name = application_name
    if watched is not None:
        new.born, new.number, new.made = watched.born, watched.number, watched.made


def _watch_all(application_name: str | None) -> None:
    _state.default_name = application_name or _state.default_name
    _patch_engine()
    kinds = ((found, type(found)) for found in gc.get_objects())
    engines = [found for found, kind in kinds if issubclass(kind, Engine) and not issubclass(kind, OptionEngine)]
    new = []
    for engine in engines:
        if LEDGER.watched(engine) is None and hasattr(engine, "pool"):
            _watch(engine, _default_pool(engine), _state.default_name, _state.default_pool)
            new.append(engine)
    _adopt_open_connections(new)


def _default_pool(engine: Engine) -> str | None:
    return f"{_state.default_pool}/{drivers.address(engine.url)}" if _state.default_pool else None


def _patch_engine() -> None:
    """From now on each engine is watched as soon as it exists, whoever imported `create_engine` from wherever."""
    if _state.original_init is not None:
        return
    original = _state.original_init = Engine.__init__

    def watch(engine: Engine) -> None:
        if _state.original_init is None:  # uninstrumented, but somebody wrapped this wrapper
            return
        try:
            _watch(engine, _default_pool(engine), _state.default_name, _state.default_pool)
            remember_origin(engine, sys._getframe(2))  # noqa: SLF001 - documented
        except Exception:  # noqa: BLE001 - an engine that is not watched is better than none
            LEDGER.errors += 1

    wrapper = _with_the_same_arguments(original, watch)
    wrapper.__wrapped__ = original
    setattr(Engine, "__init__", wrapper)  # noqa: B010 - mypy takes no assignment to a method


def _with_the_same_arguments(original: Any, then: Callable[[Engine], None]) -> Any:
    """A wrapper whose code names the same arguments: that is where `create_engine` learns which ones an engine takes."""
    code = original.__code__
    names = ", ".join(code.co_varnames[: code.co_argcount])
    source = f"def __init__({names}):\n    original({names})\n    then({code.co_varnames[0]})\n"
    namespace: dict[str, Any] = {"original": original, "then": then}
    exec(compile(source, __file__, "exec"), namespace)  # noqa: S102 - made of SQLAlchemy's own argument names
    wrapper = namespace["__init__"]
    wrapper.__defaults__ = original.__defaults__
    return wrapper


def remember_origin(engine: Engine, frame: FrameType | None) -> None:
    """Note the code that makes this engine: where engines pile up, it is the line to change."""
    watched = LEDGER.watched(engine)
    if watched is not None and not watched.made:
        watched.made = capture(frame)[0]


def _unpatch_engine() -> None:
    original = _state.original_init
    _state.original_init = _state.default_name = _state.default_pool = None
    if original is not None and getattr(Engine.__init__, "__wrapped__", None) is original:
        setattr(Engine, "__init__", original)  # noqa: B010 - mypy takes no assignment to a method


def _adopt_open_connections(engines: list[Engine]) -> None:
    """Find what these engines had open before they were watched. One walk through the heap, only when it can matter."""
    pools = {id(engine.pool): engine for engine in engines if _has_connected(engine)}
    if not pools:
        return
    for record in gc.get_objects():
        if not issubclass(type(record), ConnectionPoolEntry):
            continue
        engine = pools.get(id(getattr(record, "_ConnectionRecord__pool", None)))
        watched = LEDGER.watched(engine) if engine is not None else None
        if watched is not None:
            events.adopt_open(watched, record)


def _has_connected(engine: Engine) -> bool:
    return getattr(engine.dialect, "server_version_info", None) is not None


def _follow_forks() -> None:
    if not _state.follows_forks and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forked)
        _state.follows_forks = True


def _forked() -> None:
    _state.lock = threading.RLock()
    LEDGER.forked()
    checkouts.forget()
    marks.forget()
    MONITOR.forked()


def _go_to_work() -> None:
    if not _state.observing:
        MONITOR.start()
        statefile.ensure(snapshot)


checkouts.on_first_connect(_go_to_work)
