"""`pgleak serve`: from the settings to the last line of the log."""

from __future__ import annotations

import logging
import signal
import sys
from typing import TYPE_CHECKING

from pgleak import __version__
from pgleak.commandline import UsageError
from pgleak.exporter import Exporter
from pgleak.finding import failed
from pgleak.pool.check import check
from pgleak.web import WebConfigError, WebServer

if TYPE_CHECKING:
    from pathlib import Path

    from pgleak.settings import Settings

_END = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger("pgleak")


def run(settings: Settings, level: str) -> int:
    """Serve until a signal ends it; return the exit code.

    Raises UsageError for a wrong web config file, ListenError where the address cannot be had.
    """
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    _take_signals()
    exporter = Exporter(settings)
    try:
        server = WebServer(
            exporter,
            settings.listen.host,
            settings.listen.port,
            web_config_file=settings.web_config_file,
            scrape_timeout=settings.timeouts.scrape,
            scrape_offset=settings.timeouts.scrape_offset,
        )
    except WebConfigError as error:
        raise UsageError(str(error)) from None
    exporter.web_config_problem = lambda: server.config_problem
    server.start()
    if server.lets_everybody_in:
        log.warning("listens on every address of this machine, without a password (--web-config)")
    names = ", ".join([*exporter.targets(), *([str(settings.pool_dir)] if settings.pool_dir else [])])
    log.info("pgleak %s watches %s and listens on %s", __version__, names, server.url)
    if settings.pool_dir:
        _tell_of(settings.pool_dir)
    exporter.start()
    ended_by = signal.sigwait(_END)
    server.shutdown()
    exporter.close()
    log.info("ended by %s", signal.Signals(ended_by).name)
    return 0


def _tell_of(folder: Path) -> None:
    """One line about the folder at the start; what happens to it later is in the metrics."""
    findings = list(check(folder))
    wrong = [each for each in findings if each.level in ("warn", "fail")]
    said = "; ".join(f"{each.text}: {each.remedy}" if each.remedy else each.text for each in wrong or findings)
    # That nobody reports yet is how it begins where this starts before the application.
    log.log(logging.WARNING if failed(findings) else logging.INFO, "pools in %s: %s", folder, said)


def _take_signals() -> None:
    """Leave the signals that end us to ``sigwait``: one that reached another thread would not wake the main one.

    To be called before the first thread starts, because threads inherit the mask.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)  # even if the parent ignores it
    signal.pthread_sigmask(signal.SIG_BLOCK, _END)
