"""What an entry of a catalogue of metrics is, and families made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from prometheus_client.core import Metric

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Kind = Literal["gauge", "counter", "gaugehistogram", "histogram"]


@dataclass(frozen=True, slots=True)
class Spec:
    """One entry of the catalogue.

    ``name`` is the name as it is stored and queried, so a counter ends in ``_total``. ``labels`` are in output order;
    entries of :data:`pgleak.metrics.GROUPING` among them follow the ``group_by`` setting. ``unit`` is for the reader (``seconds``,
    ``connections``); where Prometheus wants it in the name, the name has it.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()
    note: str = ""

    @property
    def grouped(self) -> bool:
        """Whether the series are per application, that is: whether ``group_by`` shapes its labels."""
        return "application_name" in self.labels and "datname" in self.labels

    def family(self, samples: Iterable[tuple[Sequence[str], float]] = ()) -> Metric:
        """Return a fresh family of a gauge or counter; each sample is (label values in order, value)."""
        family = self.empty()
        for values, value in samples:
            family.add_sample(self.name, dict(zip(self.labels, values, strict=True)), value)
        return family

    def empty(self) -> Metric:
        """Return a fresh family with no sample."""
        name = self.name.removesuffix("_total") if self.kind == "counter" else self.name
        return Metric(name, self.help, self.kind)
