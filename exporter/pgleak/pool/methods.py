"""What the methods that are wrapped do, so that their work can be done without calling them."""

from __future__ import annotations

from inspect import unwrap
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
    code = getattr(function, "__code__", None)
    if code is None:
        return ()
    return code.co_code, code.co_names, code.co_varnames, code.co_flags, code.co_consts[1:]


def code_of(function: Any) -> CodeType | None:
    """The code of what somebody may have wrapped."""
    code: CodeType | None = getattr(unwrap(function), "__code__", None)
    return code
