"""The HTTP side: what a scraper, a browser and a health check may ask, over plain HTTP or TLS.

Give :class:`WebServer` something that is a :class:`Site` and call ``start()`` or ``serve_forever()``.
"""

from __future__ import annotations

from pgleak.web.config import WebConfigError
from pgleak.web.limits import Limits
from pgleak.web.server import ListenError, WebServer
from pgleak.web.site import Site, TargetStatus

__all__ = ["Limits", "ListenError", "Site", "TargetStatus", "WebConfigError", "WebServer"]
