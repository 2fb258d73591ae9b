"""Runs a program that is not Python on the leash: ``pgleak.demo.leash pgleak.demo.program PATH ARGUMENT...``."""

from __future__ import annotations

import signal
import subprocess
import sys


def main() -> int:
    started: list[subprocess.Popen[bytes]] = []
    is_over = False

    def end(_number: int, _frame: object) -> None:
        nonlocal is_over
        is_over = True
        for process in started:
            process.terminate()

    signal.signal(signal.SIGTERM, end)
    started.append(subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL))
    if is_over:
        end(signal.SIGTERM, None)
    return started[0].wait()


if __name__ == "__main__":
    sys.exit(main())
