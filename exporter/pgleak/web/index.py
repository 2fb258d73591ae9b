"""The page at ``/``: what this is and how each target is, for a person with a browser and nothing else."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from pgleak import __version__
from pgleak.web import overview

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgleak.web.site import TargetStatus
    from pgleak.who.history import Overview

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --paper: #ffffff; --line: #c9ced6; --soft: #57606a;
  --link: #0550ae; --up: #116329; --down: #b3131d; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --paper: #14171c; --line: #3a414b; --soft: #a3acb8;
    --link: #7cb7ff; --up: #5fd07f; --down: #ff8a85; }
}
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }
a { color: var(--link); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line); }
td, th { overflow-wrap: break-word; }
.up { color: var(--up); } .down { color: var(--down); font-weight: 600; } .soft { color: var(--soft); }
"""
_STYLE += overview.STYLE
_REFRESH = 30  # seconds

_ALLOWED_STYLE = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_NOTHING_ELSE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS = (
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src 'sha256-{_ALLOWED_STYLE}'; {_NOTHING_ELSE}",
    ),
    ("Referrer-Policy", "no-referrer"),
)

_LINKS = (
    ("/metrics", "every target, for Prometheus"),
    ("/connections", "every connection with its holder, as JSON"),
    ("/sd", "the targets, for service discovery over HTTP"),
    ("/-/healthy", "whether the process answers"),
    ("/-/ready", "whether a scrape is worth making"),
)


def page(statuses: Sequence[TargetStatus], seen: Overview | None = None, *, refreshes: bool = False) -> str:
    """The whole page; without ``seen``, of the targets alone. Whatever comes from outside is escaped."""
    up = sum(status.up is True for status in statuses)
    targets = overview.table("Targets", ("Target", "State", "Address", "Last tried"), map(_row, statuses))
    links = "\n".join(
        f'<li><a href="{path}">{path}</a>: {meaning}</li>' for path, meaning in _LINKS if seen or path != "/connections"
    )
    reload = f'<meta http-equiv="refresh" content="{_REFRESH}">\n' if refreshes else ""
    told = f"{overview.headline(seen)}, " if seen else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{reload}<title>pgleak: {told}{up} of {len(statuses)} up</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>pgleak</h1>
<p>Watches PostgreSQL servers for connection leaks and reports to Prometheus. Version {escape(__version__)}.</p>
{_refreshing(refreshes=refreshes) if seen else ""}{overview.sections(seen) if seen else ""}
<h2>Targets</h2>
{targets}
<h2>Addresses</h2>
<ul>
{links}
</ul>
</main>
</body>
</html>
"""


def _refreshing(*, refreshes: bool) -> str:
    """A page that moves by itself can be told not to, for those who read slowly or listen."""
    if refreshes:
        return f'<p class="soft">Refreshes every {_REFRESH} s. <a href="/?refresh=off">Stop that</a></p>\n'
    return '<p class="soft">Does not refresh by itself. <a href="/">Refresh</a></p>\n'


def _row(status: TargetStatus) -> str:
    name = escape(status.name)
    return (
        f'<tr><th scope="row"><a href="/probe?target={quote(status.name, safe="")}">{name}</a></th>'
        f"<td>{_state(status)}</td><td>{escape(status.address)}</td><td>{_age(status.age)}</td></tr>"
    )


def _state(status: TargetStatus) -> str:
    if status.up is None:
        return '<span class="soft">not read yet</span>'
    if status.up:
        return '<span class="up">up</span>'
    reason = f": {escape(status.reason)}" if status.reason else ""
    return f'<span class="down">down</span>{reason}'


def _age(age: float | None) -> str:
    if age is None:
        return "never"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if age >= 2 * size:
            return f"{age / size:.0f} {unit} ago"
    return f"{max(age, 0.0):.0f} s ago"
