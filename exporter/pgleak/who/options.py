"""What can be asked of `pgleak who` on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgleak import source

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

ABOUT = """\
Who holds each connection, the culprit on top: by the server, by the processes of the application (--pool-dir), or by
both together, which names the line. It shows the SQL that ends a connection and never runs it.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for."""

    once: bool = False
    as_json: bool = False
    in_words: bool = False
    everything: bool = False
    interval: float = 2.0  # seconds

    @classmethod
    def given(cls, parsed: argparse.Namespace) -> Options:
        """Read what `add` has put on the command line."""
        return cls(parsed.once, parsed.json, parsed.diagnose, parsed.all, parsed.interval)


def add(parser: argparse.ArgumentParser, seconds: Callable[[str], float]) -> None:
    """Add the options to a parser; ``seconds`` reads a positive number."""
    source.add_pool_dir(parser, "the PGLEAK_DIR of the application; alone, ask no server")
    parser.add_argument(
        "--diagnose", action="store_true", help="say in words what leaks, why, where, and what to change"
    )
    parser.add_argument(
        "--once", action="store_true", help="look once; what happens anyway where the output is no terminal"
    )
    parser.add_argument("--json", action="store_true", help="look once and print everything as JSON")
    parser.add_argument(
        "--all",
        action="store_true",
        help="show each connection with its state, age and time unused, and not only the lines that leak",
    )
    parser.add_argument("--interval", type=seconds, default=2.0, metavar="N", help="look every N seconds (default 2)")
