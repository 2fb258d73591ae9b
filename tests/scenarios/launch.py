"""Run a program of the matrix as it is, watched by pgleak with times scaled down: launch.py PROGRAM VARIANT."""

from __future__ import annotations

import gc
import logging
import runpy
import sys
from pathlib import Path

import pgleak.pool.api as pgleak
from pgleak.pool import statefile
from pgleak.pool.snapshot import Limits

#: The defaults, 5 s, 30 s, 60 s and 20 samples, in the time that a test has.
SCALED = Limits(dead_owner=0.5, alive_owner=1.0, alive_factor=5.0, unproven_site=1.5, samples=20)
#: For what must stay silent: a busy machine may stop a program for seconds, and the program would rightly be named.
PATIENT = Limits(dead_owner=2.0, alive_owner=4.0, alive_factor=5.0, unproven_site=6.0, samples=20)

if __name__ == "__main__":
    program = Path(sys.argv[1]).resolve()
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    statefile.INTERVAL = 0.2
    pgleak.MONITOR._tick = 0.2
    pgleak.instrument(name="scenario", limits=PATIENT if sys.argv[2].startswith("healthy") else SCALED)
    if not sys.argv[2].startswith("healthy"):
        # What is left behind is often garbage in cycles, and which of it a collection returns, and when, is chance: on a
        # busy machine one came between the leak and the look at it.
        gc.disable()
    sys.argv = [str(program), *sys.argv[2:]]
    sys.path[0] = str(program.parent)
    runpy.run_path(str(program), run_name="__main__")
