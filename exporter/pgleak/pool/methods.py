"""What the methods that are wrapped do, so that their work can be done without calling them."""

from __future__ import annotations

from inspect import unwrap
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import CodeType


def does_only(function: Any, source: str) -> bool:
    """Whether a function does exactly what this source does, docstrings apart."""
    namespace: dict[str, Any] = {}
    exec(source, namespace)  # noqa: S102 - written here
    del namespace["__builtins__"]
    (expected,) = namespace.values()
    return _essence(function) == _essence(expected)


def _essence(function: Any) -> tuple[Any, ...]:
    if type(function) is not FunctionType:  # a wrapper may pass for what it wraps, `__class__` and `__code__` included
        return ()
    code = function.__code__
    return code.co_code, code.co_names, code.co_varnames, code.co_flags, code.co_consts[1:]


def as_function(method: Any) -> Any:
    """What is called with the instance first, of whatever stands for a method in a class."""
    if type(method) is FunctionType:
        return method
    return lambda instance: method.__get__(instance, type(instance))()


def code_of(function: Any) -> CodeType | None:
    """The code of what somebody may have wrapped."""
    code: CodeType | None = getattr(unwrap(function), "__code__", None)
    return code
