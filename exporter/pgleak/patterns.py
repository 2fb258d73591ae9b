r"""Whether a regular expression of the user's may run on text that a client chooses: tried, within a bound.

A pattern such as ``(\w+)+$`` takes longer than the age of the world on 63 letters and an exclamation mark, which anybody
may call an application, and nothing can interrupt it. A trial proves nothing, but the usual mistakes show in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

_TRIAL = Path(__file__).with_name("pattern_trial.py")
_PATIENCE = 60.0  # seconds; what ends it sooner is its own limit of processor time
_MOST_STALLED = 5  # patterns after which the others are not tried: each costs a second


def slow(patterns: Sequence[tuple[str, re.Pattern[str]]]) -> list[int]:
    """Return the indexes of patterns that take too long; each comes with the method by which it is used.

    Returns none where no second process can be had.
    """
    found: list[int] = []
    first = stalled = 0
    while first < len(patterns) and stalled < _MOST_STALLED:
        asked = [(method, each.pattern, each.flags) for method, each in patterns[first:]]
        try:
            done = subprocess.run(  # noqa: S603  our own program
                [sys.executable, "-I", "-S", str(_TRIAL)],
                input=json.dumps(asked),
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
                env={},
            )
        except (OSError, subprocess.TimeoutExpired):
            return found
        said = done.stdout.split()
        verdicts = [word for word in said if word != "begin"]
        found += [first + index for index, word in enumerate(verdicts) if word == "slow"]
        first += len(verdicts)
        if said[-1:] != ["begin"]:
            return found
        found.append(first)  # it was under way when the kernel ended the trial
        first += 1
        stalled += 1
    return found
