"""What each address answers: a pure function of the request and the site, apart from the reads that the site makes."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgleak.exposition import encode
from pgleak.fault import Faults
from pgleak.web import index, negotiation
from pgleak.web.request import RequestError
from pgleak.web.response import Response, plain
from pgleak.web.waiting import Waiting
from pgleak.who.plain import plain as as_plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgleak.web.request import Request
    from pgleak.web.site import Site

log = logging.getLogger("pgleak.web")

_TOO_MANY = plain(503, "Too many others wait for the same at once.", ("Retry-After", "1"))
_NAMED_ONLY = (
    "Targets are named in the settings of pgleak; their names stand in /sd. A connection string is never taken."
)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request and the circumstances that its answer depends on."""

    request: Request
    received: float  # by the server's clock
    secure: bool  # over TLS that ends here
    own_address: str  # for a client that does not say which address it called


@dataclass(frozen=True, slots=True)
class Pages:
    """Routes requests; ``answer`` never raises."""

    site: Site
    scrape_timeout: float
    scrape_offset: float
    waiting: Waiting = field(default_factory=Waiting)
    faults: Faults = field(default_factory=lambda: Faults(log))

    def answer(self, visit: Visit) -> Response:
        """The answer to any request, whatever the site does."""
        page = _ROUTES.get(visit.request.path)
        if page is None:
            return plain(404, "There is nothing at this address. See / for what there is.")
        if visit.request.method not in {"GET", "HEAD"}:
            return plain(405, "Only GET and HEAD are answered here.", ("Allow", "GET, HEAD"))
        try:
            return _squeezed(page(self, visit), visit.request)
        except RequestError as refused:
            return plain(refused.status, refused.text)
        except Exception as error:  # noqa: BLE001 -- a scraper gets a status, whatever broke; its frames are safe to log
            self.faults.tell(f"{visit.request.path} could not be answered", error)
            return plain(500, "pgleak failed to make this page; its log says where.")

    def index(self, visit: Visit) -> Response:
        with self.waiting.place("/") as admitted:
            if not admitted:
                return _TOO_MANY
            seen = self.site.overview()
            statuses = self.site.statuses()
        refreshes = seen is not None and visit.request.parameters("refresh") != ["off"]
        body = index.page(statuses, seen, refreshes=refreshes)
        return Response(200, body.encode(), "text/html; charset=utf-8", index.HEADERS)

    def connections(self, _visit: Visit) -> Response:
        with self.waiting.place("/") as admitted:
            if not admitted:
                return _TOO_MANY
            seen = self.site.overview()
        if seen is None:
            return plain(404, "The settings of pgleak switch this off (connections_page).")
        return Response(200, json.dumps(as_plain(seen.report, seen.findings)).encode(), "application/json")

    def metrics(self, visit: Visit) -> Response:
        return self._exposition(visit, None)

    def probe(self, visit: Visit) -> Response:
        names = visit.request.parameters("target")
        if len(names) != 1 or not names[0]:
            return plain(400, f"Say which target: /probe?target=NAME, once. {_NAMED_ONLY}")
        if names[0] not in self.site.targets():
            return plain(404, f"There is no target of this name. {_NAMED_ONLY}")
        return self._exposition(visit, names[0])

    def discovery(self, visit: Visit) -> Response:
        """Prometheus HTTP service discovery: one group per target, each scraped through /probe."""
        address = visit.request.header("host") or visit.own_address
        groups = [{"targets": [address], "labels": _labels(name, secure=visit.secure)} for name in self.site.targets()]
        return Response(200, json.dumps(groups, indent=2).encode(), "application/json")

    def healthy(self, _visit: Visit) -> Response:
        return plain(200, "pgleak is healthy.")

    def ready(self, _visit: Visit) -> Response:
        if self.site.ready():
            return plain(200, "pgleak is ready.")
        return plain(503, "pgleak is not ready yet.")

    def _exposition(self, visit: Visit, target: str | None) -> Response:
        request = visit.request
        openmetrics, content_type = negotiation.exposition(request.header("accept"))
        seconds = negotiation.budget(
            request.header("x-prometheus-scrape-timeout-seconds"),
            limit=self.scrape_timeout,
            offset=self.scrape_offset,
        )
        with self.waiting.place(("scrape", target)) as admitted:
            if not admitted:
                return _TOO_MANY
            body = encode(self.site.families(visit.received + seconds, target), openmetrics=openmetrics)
        return Response(200, body, content_type, (("Vary", "Accept, Accept-Encoding"),))


_ROUTES: dict[str, Callable[[Pages, Visit], Response]] = {
    "/": Pages.index,
    "/metrics": Pages.metrics,
    "/probe": Pages.probe,
    "/sd": Pages.discovery,
    "/connections": Pages.connections,
    "/-/healthy": Pages.healthy,
    "/-/ready": Pages.ready,
}
ADDRESSES = frozenset(_ROUTES)


def _labels(name: str, *, secure: bool) -> dict[str, str]:
    """``instance`` sets the targets apart: their address is one and the same, and ``up`` has no other label.

    There is no ``server`` label here: it would push the ``server`` of the metrics aside, into ``exported_server``.
    """
    labels = {
        "__metrics_path__": "/probe",
        "__param_target": name,
        "__meta_pgleak_target": name,
        "instance": name,
    }
    if secure:  # else unknown: TLS may end at a proxy before us, so the scheme of the scrape job stands
        labels["__scheme__"] = "https"
    return labels


def _squeezed(response: Response, request: Request) -> Response:
    body = negotiation.compress(response.body, request.header("accept-encoding"))
    headers = response.headers
    if not any(name == "Vary" for name, _ in headers):
        headers = (*headers, ("Vary", "Accept-Encoding"))
    if body is None:
        return Response(response.status, response.body, response.content_type, headers)
    headers = (*headers, ("Content-Encoding", "gzip"))
    return Response(response.status, body, response.content_type, headers)
