"""Why something is not collected: the way back from it to a global name, which is what somebody can change."""

from __future__ import annotations

import gc
import sys
from types import CoroutineType, FrameType, FunctionType, GeneratorType, ModuleType, TracebackType

import pytest

_BLIND = ("_pytest", "pluggy", "pgleak")  # who runs a test refers to everything in it, and explains nothing
_LAYERS = 20
_MOST = 3_000  # objects looked at; each layer costs one walk through the heap


def keeper_of(target: object) -> tuple[str, ...]:
    """What keeps `target` alive in words, the nearest first and a global name last; empty where there is no such name."""
    objects: dict[int, object] = {id(target): target}
    parents: dict[int, int] = {id(target): 0}
    # type() and not isinstance() throughout: a proxy, such as Flask's, would go and look for what it stands for
    modules = {id(vars(each)): name for name, each in sys.modules.copy().items() if issubclass(type(each), ModuleType)}
    layer: list[object] = [target]
    for _ in range(_LAYERS):
        found = gc.get_referrers(*layer)
        following: list[object] = []
        ours = {id(objects), id(layer), id(found), id(following), id(sys._getframe())}  # noqa: SLF001 - documented
        for each in found:
            if id(each) in objects or id(each) in ours or _is_blind(each, modules):
                continue
            referred = {id(child) for child in gc.get_referents(each)}
            child = next((known for known in layer if id(known) in referred), None)
            if child is None:
                continue
            if id(each) in modules and isinstance(each, dict):
                name = next((name for name, value in each.items() if value is child), "?")
                return (*_described(id(child), objects, parents), f"the global {name} of {modules[id(each)]}")
            objects[id(each)] = each
            parents[id(each)] = id(child)
            following.append(each)
        layer = following
        if not layer or len(objects) > _MOST:
            break
    return ()


def _is_blind(each: object, modules: dict[int, str]) -> bool:
    if type(each) is pytest.ExceptionInfo:
        return False
    module = modules.get(id(each)) or (_code_module(each) if type(each) is FunctionType else type(each).__module__)
    return str(module).partition(".")[0] in _BLIND


def _code_module(each: object) -> object:
    names = each.f_globals if type(each) is FrameType else getattr(each, "__globals__", {})
    return names.get("__name__")


def _described(last: int, objects: dict[int, object], parents: dict[int, int]) -> tuple[str, ...]:
    """The parts of the way back that tell something, the nearest first."""
    words: list[str] = []
    while last:
        word = _word(objects[last])
        if word and word not in words:
            words.append(word)
        last = parents[last]
    return tuple(reversed(words))


def _word(each: object) -> str:
    kind = type(each)
    if kind is pytest.ExceptionInfo:
        return "what pytest.raises() gave"
    if kind is TracebackType:
        return "a traceback"
    if issubclass(kind, BaseException):
        return f"the exception {kind.__name__}"
    if kind is FrameType and str(_code_module(each)).partition(".")[0] not in _BLIND:
        return f"the frame of {each.f_code.co_name}()"  # type: ignore[attr-defined]
    if kind in {FunctionType, GeneratorType, CoroutineType}:
        return f"{each.__qualname__}()"  # type: ignore[attr-defined]
    return ""
