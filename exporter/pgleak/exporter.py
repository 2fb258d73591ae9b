"""Everything that ``pgleak serve`` watches, behind the interface that the web server asks."""

from __future__ import annotations

import logging
import platform
import threading
import time
from importlib import metadata
from typing import TYPE_CHECKING

from prometheus_client import ProcessCollector

from pgleak import __version__, metrics
from pgleak.fault import Faults
from pgleak.holders import metrics as join_metrics
from pgleak.holders.coverage import Coverage
from pgleak.holders.join import Join, join
from pgleak.pool import reading as pool_reading
from pgleak.pool.merged import READABLE, collect_folder
from pgleak.postgres.backends import backends
from pgleak.postgres.collector import families
from pgleak.postgres.reader import Reader
from pgleak.web import TargetStatus
from pgleak.who.diagnosis import diagnose
from pgleak.who.history import History, Key, Overview
from pgleak.who.report import Report, report
from pgleak.who.strays import Homes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prometheus_client.core import Metric

    from pgleak.postgres.reader import Reading
    from pgleak.settings import Settings, Thresholds

_LOG = logging.getLogger("pgleak")
_STALE = 15.0  # seconds after which the page reads a target again
_GLANCE = 2.0  # seconds that somebody who opens the page waits for that


class Exporter:
    """Watches the targets of the settings; implements :class:`pgleak.web.Site`. Safe for concurrent use."""

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        *,
        coverage: Coverage | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._now = now
        self._readers = {target.name: Reader(target, settings, clock, now) for target in settings.targets}
        self._coverage = coverage or Coverage(settings.reporting_applications, clock=clock)
        self._history = History()
        self._homes = Homes()
        self._joining = threading.Lock()
        self._faults = Faults(_LOG)
        self._addresses = {target.name: target.dsn.server for target in settings.targets}
        self._process = ProcessCollector(registry=None)
        self._build_info = (__version__, platform.python_version(), _installed("SQLAlchemy"))
        self.web_config_problem: Callable[[], str] = str  # the web server's, once there is one

    def families(self, deadline: float, target: str | None = None) -> Iterator[Metric]:
        """Read one target, or all side by side, and yield the metric families.

        ``deadline`` is in seconds of the clock. A target that cannot be read is data, not an error. The exporter's own
        process is described only when all targets are asked for, so that it is not counted once per target.
        """
        readings = self._read(deadline, target)
        yield from families(readings, self._settings.group_by)
        if target is None:
            yield from self._pools(readings)
            yield metrics.WEB_CONFIG_OK.family([((), float(not self.web_config_problem()))])
            yield metrics.BUILD_INFO.family([(self._build_info, 1)])
            yield from self._process.collect()

    def _pools(self, readings: Sequence[Reading]) -> list[Metric]:
        """What the processes report, and who holds what: where we fail in that, the servers are told of all the same."""
        path = self._settings.pool_dir
        if not path:
            return []
        try:
            folder = pool_reading.read(path)
            found = list(collect_folder(path, folder))
            return found + (list(join_metrics.families(self._join(readings, folder))) if readings else [])
        except Exception as error:  # noqa: BLE001  a fault of ours must show as data, not as a missing scrape
            self._faults.tell("the pools are left out", error)
            return [READABLE.family([((), 0.0)])]

    def report(self, deadline: float) -> Report:
        """Read all targets and the folder, and say who holds what. ``deadline`` is in seconds of the clock."""
        folder = (
            self._folder()
        )  # before the servers, which take their time: what is there afterwards was there all along
        return self._report(self._read(deadline), folder)

    def overview(self) -> Overview | None:
        """Return who holds what, from readings of the last seconds, and the day before; None where that is switched off."""
        if not self._settings.connections_page:
            return None
        seen = self._report([reading for _, reading in self._glance() if reading], self._folder())
        return Overview(seen, diagnose(seen), self._history.series())

    def _folder(self) -> pool_reading.Reading | None:
        return pool_reading.read(self._settings.pool_dir) if self._settings.pool_dir else None

    def _report(self, readings: Sequence[Reading], folder: pool_reading.Reading | None) -> Report:
        found = self._join(readings, folder or pool_reading.Reading(), self._settings.thresholds)
        return report(self._now(), readings, self._addresses, folder, found, self._homes)

    def _read(self, deadline: float, target: str | None = None) -> list[Reading]:
        readers = list(self._readers.values()) if target is None else [self._readers[target]]
        flights = [reader.start() for reader in readers]
        readings = [reader.finish(flight, deadline) for reader, flight in zip(readers, flights, strict=True)]
        self._remember(readings)
        return readings

    def _remember(self, readings: Iterable[Reading]) -> None:
        for reading in readings:
            if reading.server is None:
                continue
            counts: dict[Key, int] = {(reading.name, "", ""): reading.used}
            for pack, place in zip(reading.packs, reading.places, strict=True):
                name = (reading.name, pack.usename, place.name)
                counts[name] = counts.get(name, 0) + pack.size
            self._history.add(reading.asked, counts)

    def _join(
        self, readings: Sequence[Reading], folder: pool_reading.Reading, thresholds: Thresholds | None = None
    ) -> Join:
        """Say who holds each connection of these servers; with thresholds, each is judged by itself, too."""
        connections = [each for reading in readings for each in backends(reading, thresholds)]
        read = {reading.name: reading.ended for reading in readings}
        with self._joining:
            found = join(
                connections,
                folder.processes,
                self._addresses,
                {each.name: each.asked for each in readings if each.server},
            )
            self._homes.learn(found)
            return self._coverage.judge(found, folder, read)

    def targets(self) -> Sequence[str]:
        """Return the names of the targets, in the order of the settings."""
        return list(self._readers)

    def statuses(self) -> Sequence[TargetStatus]:
        """Return how the targets are; one that was not read lately is read now, within a moment."""
        return [self._status(reader, reading) for reader, reading in self._glance()]

    def ready(self) -> bool:
        """Return True: a server that is down is a finding, and no reason to keep the exporter out of service."""
        return True

    def start(self) -> None:
        """Begin a read of each target, so that the log says at once what does not work."""
        for reader in self._readers.values():
            reader.start()

    def close(self) -> None:
        """Give all slots back."""
        for reader in self._readers.values():
            reader.close()

    def _glance(self) -> list[tuple[Reader, Reading | None]]:
        readers = list(self._readers.values())
        flights = {reader: reader.start() for reader in readers if self._is_stale(reader)}
        # From the start of a read on: nobody waits for one that was waited for already.
        readings = [
            reader.finish(flights[reader], flights[reader].started + _GLANCE, scrape=False)
            if reader in flights
            else reader.last
            for reader in readers
        ]
        self._remember(reading for reading in readings if reading)
        return list(zip(readers, readings, strict=True))

    def _status(self, reader: Reader, last: Reading | None) -> TargetStatus:
        name, address = reader.target.name, reader.target.dsn.address
        if last is None:
            return TargetStatus(name, address)
        reason = f"{last.reason}: {last.detail}" if last.reason else ""
        return TargetStatus(name, address, not last.reason, reason, max(self._clock() - last.ended, 0.0))

    def _is_stale(self, reader: Reader) -> bool:
        return reader.last is None or self._clock() - reader.last.ended > _STALE


def _installed(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
