"""PromQL from the catalogue: a selector names a metric and labels that the catalogue knows, or it is not built."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgleak.spec import Spec

APPLICATION = ("server", "usename", "application_name")
"""What tells applications apart; databases are added up, for one application may use several."""
PER_APPLICATION = ", ".join(APPLICATION)

HOUR = 3600
RATE = "suffix:/h"
"""Grafana's unit of what is multiplied by :data:`HOUR`; it has none of its own. The blank before it is Grafana's."""

_VARIABLES = {"server": "$server", "pool": "$pool", "site": "$site"}
_SUFFIXES = {"gaugehistogram": ("_bucket", "_gcount", "_gsum"), "histogram": ("_bucket", "_count", "_sum")}


def select(spec: Spec, *matchers: str, suffix: str = "") -> str:
    """Return a selector with the matchers of the dashboard's variables and further ones (``label="value"``).

    Raises ``ValueError`` for a label or a suffix that the metric does not have.
    """
    if suffix not in _SUFFIXES.get(spec.kind, ("",)):
        raise ValueError(f"{spec.name} is a {spec.kind} and has no {suffix or 'series of its own'}")
    for matcher in matchers:
        label = matcher.partition("=")[0].rstrip("!~ ")
        if label not in spec.labels and not (label == "le" and suffix == "_bucket"):
            raise ValueError(f"{spec.name} has no label {label}")
    # A place in the code is chosen together with a pool; what is about servers knows no pools.
    of_pool = "pool" in spec.labels
    chosen = [name for name in spec.labels if name in _VARIABLES and (of_pool or name != "site")]
    variables = [f'{name}=~"{_VARIABLES[name]}"' for name in chosen]
    inside = ", ".join(['job=~"$job"', *variables, *matchers])
    return f"{spec.name}{suffix}{{{inside}}}"


def recorded(name: str, *matchers: str) -> str:
    """Return a selector of a recording rule, which has the labels of what it is about and no ``job``."""
    inside = ", ".join(['server=~"$server"', *matchers])
    return f"{name}{{{inside}}}"


def nameless(by: str, vector: str) -> str:
    """Take its name from a recorded series: else a table has a column for that, and a row of its own."""
    return f"max by ({by}) ({vector})"


def once(by: str, vector: str) -> str:
    """Sum a vector by labels, the server among them; a server that is scraped in two ways counts once.

    Each way (``/metrics`` and ``/probe``) is added up by itself and then one of them taken: two scrapes may see the same
    connection in two states.
    """
    return f"max by ({by}) (sum by (job, instance, {by}) ({vector}))"


def per_application(vector: str) -> str:
    return once(PER_APPLICATION, vector)


def floor(vector: str) -> str:
    """Return the lowest value of half an hour: load raises the peaks, a leak raises the floor."""
    return f"min_over_time({vector}[30m:1m])"


def growth(vector: str, at: str = "") -> str:
    """Return how fast a floor rises, per second, over the last six hours."""
    return f"deriv({floor(vector)}[6h:5m]{at})"


def gained(spec: Spec, *matchers: str, window: str = "$__range") -> str:
    """Return what each series of a counter gained. One that was not there before began with its first case, not with 0.

    Before means a day: what comes back after a gap was not gained in it.
    """
    series = select(spec, *matchers)
    return f"(({series} unless last_over_time({series}[1d] offset {window})) or increase({series}[{window}]))"


def leaders(vector: str, ranking: str, number: int, by: str = PER_APPLICATION) -> str:
    """Keep the series that rank highest at the end of the range, all the way: lines that do not come and go."""
    return f"{vector} and on ({by}) topk({number}, {ranking} > 0)"
