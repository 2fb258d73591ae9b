"""What the programs of the matrix share: the database's address, a reason to end, and the choice of the twin.

Run as `SCENARIO_DSN=postgresql+psycopg2://... python PROGRAM.py VARIANT`; ends when standard input is closed, at the
latest after SCENARIO_SECONDS.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DSN = os.environ["SCENARIO_DSN"]
#: The same database through psycopg 3, which has an asynchronous side.
ASYNC_DSN = make_url(DSN).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)

ended = threading.Event()


def turns(pause: float = 0.02) -> Iterator[int]:
    """Count until the program shall end, with a pause after each turn."""
    number = 0
    while not ended.is_set():
        yield number
        number += 1
        ended.wait(pause)


def start(function: Callable[..., object], *arguments: object) -> None:
    """Run the function in a thread that nobody waits for."""
    threading.Thread(target=function, args=arguments, daemon=True).start()


def main(*variants: Callable[[], object]) -> None:
    """Run the variant that the command line names; what it returns stays alive until the program ends."""
    watch()
    chosen = {variant.__name__: variant for variant in variants}[sys.argv[1]]
    kept = chosen()
    ended.wait()
    del kept
    os._exit(0)


def watch() -> None:
    """End with standard input, or when the time is up; to be called again in a forked child."""
    limit = threading.Timer(float(os.environ.get("SCENARIO_SECONDS", "30")), os._exit, (0,))
    limit.daemon = True
    limit.start()
    start(_end_with_standard_input)


def _end_with_standard_input() -> None:
    while os.read(0, 1024):
        pass
    ended.set()
    threading.Event().wait(2.0)
    os._exit(0)
