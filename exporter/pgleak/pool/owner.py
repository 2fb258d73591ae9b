"""Who holds a connection: a thread, a task or a greenlet, known without keeping it alive."""

from __future__ import annotations

import sys
import threading
import weakref
from asyncio import _get_running_loop, current_task, tasks
from typing import TYPE_CHECKING, Any

from pgleak.pool.lines import resolve, standing
from pgleak.pool.origin import APPLICATION, FRAMES, PACKAGE, capture, classify
from pgleak.pool.snapshot import Frame, Owner, OwnerKind

if TYPE_CHECKING:
    import asyncio
    from types import FrameType


#: What serves web requests: a thread that runs it may be an executor's too, as gunicorn's are.
_SERVERS = frozenset(
    [
        "aiohttp", "asgiref", "bottle", "cheroot", "django", "falcon", "fastapi", "flask", "gunicorn", "hypercorn", "pyramid",
        "starlette", "tornado", "uvicorn", "waitress", "werkzeug",
    ]
)  # fmt: skip


class _Token:
    """Lives in a thread's own storage, so that it dies with the thread. Thread idents and ids come round again."""

    __slots__ = ("__weakref__",)


class _Mortal:
    """Remembers since when it is known to be dead: a checkout may be older than its owner's death by any time."""

    __slots__ = ("_dead_since",)

    _dead_since: float | None

    def _dead_for(self, now: float) -> float:
        if self._dead_since is None:
            self._dead_since = now
        return max(now - self._dead_since, 0.0)


class ThreadOwner(_Mortal):
    """A thread, or under gevent's patch a greenlet."""

    __slots__ = ("_greenlet", "_lent", "_runs_jobs", "_token", "ident", "name")

    def __init__(self, token: _Token) -> None:
        self._token = weakref.ref(token)
        self.ident = threading.get_ident()
        # threading.current_thread() would take a lock to register a thread that it does not know
        thread = getattr(threading, "_active", {}).get(self.ident)
        self.name = thread.name if thread is not None else f"thread {self.ident}"
        # anyio (FastAPI, Starlette) ends a thread that was idle for a while, in the midst of a request too: what one
        # thread opened for the request, another one closes
        self._lent = type(thread).__module__.startswith("anyio.")
        self._runs_jobs = _runs_jobs(sys._getframe())  # noqa: SLF001 - documented; what a thread is for, it is for good
        self._dead_since = None
        self._greenlet = _current_greenlet()
        if self._greenlet is not None:
            self.name = getattr(self._greenlet(), "name", self.name)

    def key(self) -> int:
        return id(self)

    @property
    def alive(self) -> bool:
        if self._greenlet is None:
            return self._token() is not None
        greenlet = self._greenlet()
        return greenlet is not None and not greenlet.dead

    def describe(self, now: float) -> tuple[Owner, tuple[Frame, ...]]:
        """The owner, and where he stands now."""
        kind: OwnerKind = "thread" if self._greenlet is None else "greenlet"
        if not self.alive:
            if self._lent:
                return Owner(kind, self.name, "unknown"), ()
            return Owner(kind, self.name, "dead", self._dead_for(now), self._runs_jobs), ()
        owner = Owner(kind, self.name, "alive", runs_jobs=self._runs_jobs)
        if self._greenlet is None:
            return owner, standing(self.ident)
        greenlet = self._greenlet()
        return owner, _resolved(getattr(greenlet, "gr_frame", None))


class TaskOwner(_Mortal):
    """An asyncio task."""

    __slots__ = ("_task", "name")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = weakref.ref(task)
        self._dead_since = None
        self.name = task.get_name()

    def key(self) -> int:
        return id(self._task())

    @property
    def alive(self) -> bool:
        task = self._task()
        return task is not None and not task.done()

    def describe(self, now: float) -> tuple[Owner, tuple[Frame, ...]]:
        """The owner, and where he stands now: the innermost coroutine of the application that waits."""
        task = self._task()
        if task is None or task.done():
            return Owner("task", self.name, "dead", self._dead_for(now)), ()
        return Owner("task", self.name, "alive"), _awaiting(task)


class UnknownOwner:
    """Whoever checked a connection out before pgleak was there to see it."""

    __slots__ = ()

    name = "unknown"
    alive = True

    def key(self) -> int:
        return 0

    def describe(self, _now: float) -> tuple[Owner, tuple[Frame, ...]]:
        return Owner("thread", "unknown", "unknown"), ()


UNKNOWN_OWNER = UnknownOwner()


#: Empty where no task runs now in any thread, which is told sooner than that no loop runs in this one. Python 3.14 keeps
#: it with each thread instead: there it is never empty, and the loop is asked for.
TASKS: Any = getattr(tasks, "_current_tasks", (None,)) if sys.version_info < (3, 14) else (None,)


class Here:
    """Where each thread's owner is kept, once it has one."""

    storage: Any = threading.local()
    earlier: Any = None  # kept, because whoever is known there lives as long as it does


def current_owner() -> ThreadOwner | TaskOwner:
    """Whoever runs now: the task where an event loop runs, else the thread."""
    if _get_running_loop() is not None:
        task = current_task()
        if task is not None:
            return TaskOwner(task)
    try:
        owner: ThreadOwner = Here.storage.owner
    except AttributeError:
        token = _Token()
        owner = ThreadOwner(token)
        Here.storage.token = token
        Here.storage.owner = owner
    return owner


def adapt() -> None:
    """Where gevent has patched threads since the import, tell greenlets apart instead of threads."""
    if type(Here.storage) is not threading.local:
        Here.earlier = Here.storage
        Here.storage = threading.local()


def _current_greenlet() -> weakref.ref[Any] | None:
    """The running greenlet where gevent runs the threads, else None."""
    monkey, greenlets = sys.modules.get("gevent.monkey"), sys.modules.get("greenlet")
    if monkey is None or greenlets is None or not monkey.is_module_patched("threading"):
        return None
    return weakref.ref(greenlets.getcurrent())


def _runs_jobs(frame: FrameType | None) -> bool:
    """Whether an executor runs this, with no server of web requests in between."""
    executors = sys.modules.get("concurrent.futures.thread")
    if executors is None:
        return False
    while frame is not None and frame.f_globals is not vars(executors):
        module = frame.f_globals.get("__name__")
        if isinstance(module, str) and module.partition(".")[0] in _SERVERS:
            return False
        frame = frame.f_back
    return frame is not None


def _resolved(frame: FrameType | None) -> tuple[Frame, ...]:
    return resolve(capture(frame)[0])


def _awaiting(task: asyncio.Task[Any]) -> tuple[Frame, ...]:
    """Follow what the task awaits down to the innermost coroutine; a running task stands where its thread stands."""
    stack: tuple[Any, ...] = ()
    awaited: Any = task.get_coro()
    for _ in range(64):
        frame = (
            getattr(awaited, "cr_frame", None)
            or getattr(awaited, "gi_frame", None)
            or getattr(awaited, "ag_frame", None)
        )
        if frame is None:
            break
        if classify(frame) in {APPLICATION, PACKAGE}:
            stack = (frame.f_code, frame.f_lasti, *stack)
        awaited = (
            getattr(awaited, "cr_await", None)
            or getattr(awaited, "gi_yieldfrom", None)
            or getattr(awaited, "ag_await", None)
        )
    return resolve(stack[: 2 * FRAMES])
