"""The limits of an application without code of ours: `PGLEAK_DEAD_OWNER=10`, one variable for each field of `Limits`."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import fields
from typing import TYPE_CHECKING

from pgleak import variables
from pgleak.pool.snapshot import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger("pgleak.pool")


def limits_from_environment(environment: Mapping[str, str] = os.environ) -> Limits:
    """What the variables say, the default where one is missing or makes no sense. Never raises; says so in one line."""
    chosen: dict[str, float] = {}
    mistakes = []
    for field in fields(Limits):
        variable = variables.of_limit(field.name)
        text = environment.get(variable, "").strip()
        if not text:
            continue
        whole = isinstance(field.default, int)
        try:
            value = int(text) if whole else float(text)
            Limits(**{field.name: value})  # type: ignore[arg-type]
        except ValueError:
            value = math.inf
        if value != math.inf:  # which in code is meant, and here is more likely a mistake
            chosen[field.name] = value
        else:
            mistakes.append(f"{variable} must be a {'whole ' * whole}number, 0 or more; {field.default:g} holds")
    if mistakes:
        _log.warning("%s", "; ".join(mistakes))  # not what was given: whatever that is, it may be secret
    return Limits(**chosen)  # type: ignore[arg-type]
