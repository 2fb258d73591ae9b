"""Tries regular expressions on text that makes careless ones backtrack without end; a program of its own.

:mod:`pgleak.patterns` starts it, since nothing else can stop a match: the ``re`` module holds the interpreter meanwhile.
Reads a JSON list of [method, pattern, flags], and writes one line per pattern, before and after: ``begin``, then ``ok`` or
``slow`` and the text. It is killed by the kernel where one takes about a second of processor time.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from itertools import permutations

_LONGEST = 63  # bytes that PostgreSQL keeps of an application name or a user
_SLOW = 0.02  # seconds of processor time for one text; what is sound takes a thousandth of that
_USUAL = "aZ0-_. /:"
_MOST = 12  # characters that are combined


def texts(pattern: str) -> list[str]:
    """Return repetitions of what the pattern may repeat, each with an end that does not fit."""
    characters = list(dict.fromkeys([*_USUAL, *re.sub(r"\\.|\W", "", pattern)]))[:_MOST]
    units = [*characters, *("".join(pair) for pair in permutations(characters, 2))]
    return [(unit * _LONGEST)[: _LONGEST - 1] + end for unit in units for end in "!\n"]


def main() -> None:
    """Try each pattern on each text."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for method, pattern, flags in json.load(sys.stdin):
        limit = round(time.process_time()) + 1  # whole seconds: half a second at the least
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        print("begin", flush=True)
        match = getattr(re.compile(pattern, flags), method)
        found = "ok"
        for text in texts(pattern):
            begun = time.process_time()
            match(text)
            if time.process_time() - begun > _SLOW:
                found = "slow"
                break
        print(found, flush=True)


if __name__ == "__main__":
    main()
