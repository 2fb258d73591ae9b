"""What the client can read: the exposition format, gzip, and how much time it gives."""

from __future__ import annotations

import math
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING

from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from collections.abc import Iterator

# prometheus_client takes the first entry that it can parse, fails on a version that is not a number, and repeats
# what it was sent in Content-Type. So it is only ever shown entries from here, the client's favourite first.
_FORMATS = {
    ("application/openmetrics-text", "1.0.0"),
    ("application/openmetrics-text", ""),
    ("text/plain", "1.0.0"),
    ("text/plain", "0.0.4"),
    ("text/plain", ""),
}
_ESCAPINGS = {"allow-utf-8", "underscores", "dots", "values"}

_GZIP_LEVEL = 1  # a tenth to a twentieth of the size; 6 saves a fifth of that for twice the time
_GZIP_WORTHWHILE = 1400  # bytes; less than this is one packet either way


def _preferences(header: str) -> Iterator[tuple[float, str, dict[str, str]]]:
    for entry in header.split(","):
        name, *rest = (part.strip() for part in entry.split(";"))
        parameters = dict(part.partition("=")[::2] for part in rest)
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            quality = 0.0
        yield quality, name.lower(), parameters


@lru_cache(maxsize=64)
def exposition(accept: str) -> tuple[bool, str]:
    """The exposition format that the client likes best: whether it is OpenMetrics, and its content type."""
    known = []
    for quality, name, parameters in _preferences(accept):
        version, escaping = parameters.get("version", ""), parameters.get("escaping", "")
        if quality > 0 and (name, version) in _FORMATS:
            entry = f"{name};version={version}" if version else name
            known.append((quality, f"{entry};escaping={escaping}" if escaping in _ESCAPINGS else entry))
    known.sort(key=lambda pair: -pair[0])
    # Only the favourite: prometheus_client would pass over the plain text that stands before OpenMetrics.
    _, content_type = choose_encoder(known[0][1] if known else "")
    return content_type.startswith("application/openmetrics-text"), content_type


@lru_cache(maxsize=64)
def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the client takes gzip: named, or covered by ``*``, and not with q=0."""
    qualities = {name: quality for quality, name, _ in _preferences(accept_encoding)}
    return qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0.0))) > 0


def compress(body: bytes, accept_encoding: str) -> bytes | None:
    """The body in gzip, or None where that is not wanted or not worthwhile."""
    if len(body) < _GZIP_WORTHWHILE or not accepts_gzip(accept_encoding):
        return None
    squeezer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return squeezer.compress(body) + squeezer.flush()


def budget(header: str, *, limit: float, offset: float) -> float:
    """Seconds for one scrape: what the scraper waits less the offset, never more than our own limit, never zero.

    A timeout that is hardly longer than the offset is halved instead. What is not a positive number is ignored.
    """
    try:
        timeout = float(header) if header else math.inf
    except ValueError:
        timeout = math.inf
    if not (timeout > 0 and math.isfinite(timeout)):
        return limit
    return min(limit, max(timeout - offset, timeout / 2, _SMALLEST_BUDGET))


_SMALLEST_BUDGET = 0.05  # seconds; enough to say that there was no time
