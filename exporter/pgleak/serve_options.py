"""The options of ``pgleak serve``, and what its help says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgleak import commandline, source

if TYPE_CHECKING:
    import argparse

ABOUT = """\
Watch PostgreSQL servers and serve what is seen to Prometheus.

One server, from the first of these that is there:
  --dsn 'postgresql://pgleak@db1/postgres'    or 'host=db1 user=pgleak dbname=postgres'
  PGLEAK_DSN                                  the same, in the environment: not seen by ps
  PGHOST, PGUSER, PGSERVICE, ~/.pgpass ...    libpq's own environment
Many servers, and everything else that can be set (grouping, rewriting and ignoring of names, caps, thresholds,
timeouts, the canary, the page): --config FILE. With it, PGLEAK_DSN is not read. --print-example prints a file with
every key and its default; a wrong file is refused with all of its problems at once, and exit code 2. It is read at the
start only; password files are read again at each login, and the web config file when it changes.

Passwords belong in PGPASSWORD, ~/.pgpass, a libpq service or --password-file. In --dsn they show in ps.
"""
PAGES = """\
pages:
  /                    what leaks and where, room and time left, targets; for a browser
  /connections         every connection and its holder, as JSON
  /metrics             all targets; text or OpenMetrics, gzip when asked for
  /probe?target=NAME   one target
  /sd                  targets for Prometheus' http_sd_configs
  /-/healthy  /-/ready

A target is read when it is asked for and never in between. The answer comes within timeouts.scrape, and earlier where
the scraper waits less (X-Prometheus-Scrape-Timeout-Seconds, which Prometheus sends, less timeouts.scrape_offset).

Each label has at most caps.* values for each server (100 databases, 100 users, 100 application names): who came first
stays, the rest is summed into (other).
"""
_LOG_LEVELS = ("debug", "info", "warning", "error")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options, those that name servers among them."""
    source.add(parser)
    source.add_pool_dir(
        parser, "also serve the SQLAlchemy pools of the processes whose PGLEAK_DIR this is; alone, watch no server"
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="where to listen (default: PGLEAK_LISTEN, then `listen` of the settings file, then 127.0.0.1:10432)",
    )
    parser.add_argument(
        "--web-config",
        metavar="FILE",
        type=commandline.path,
        help="TLS and basic auth, in the format of Prometheus' web config file; re-read when it changes",
    )
    parser.add_argument(
        "--print-example",
        action="store_true",
        help="print a settings file with every key, its default and why; then end",
    )
    parser.add_argument("--log-level", choices=_LOG_LEVELS, default="info", help="how much to log (default info)")
