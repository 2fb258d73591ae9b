"""The environment variables of both halves, and those that look like one of them and are read by nobody."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING

from pgleak.pool.snapshot import Limits
from pgleak.problem import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PREFIX = "PGLEAK_"
DSN = f"{_PREFIX}DSN"
LISTEN = f"{_PREFIX}LISTEN"
DIR = f"{_PREFIX}DIR"
APPLICATION_NAME = f"{_PREFIX}APPLICATION_NAME"
HELPERS = f"{_PREFIX}HELPERS"


def of_limit(field: str) -> str:
    """The variable of a field of `Limits`."""
    return f"{_PREFIX}{field.upper()}"


OF_COMMANDS = (DSN, LISTEN)
OF_APPLICATIONS = (DIR, APPLICATION_NAME, HELPERS, *(of_limit(each.name) for each in fields(Limits)))
_KUBERNETES = re.compile(r"_(SERVICE_HOST|SERVICE_PORT\w*|PORT|PORT_\d+_\w+)$")  # for each Service, as one named pgleak


def unread(environ: Mapping[str, str], otherwise: str) -> Iterator[str]:
    """Say which variables look like ours and are not, by their names alone; `otherwise` where none of ours is near."""
    known = (*OF_COMMANDS, *OF_APPLICATIONS)
    for name in sorted(environ):
        if name.startswith(_PREFIX) and name not in known and not _KUBERNETES.search(name):
            near = nearest(name.removeprefix(_PREFIX), [each.removeprefix(_PREFIX) for each in known])
            yield f"{name} is not read; {f'did you mean {_PREFIX}{near}?' if near else otherwise}"
