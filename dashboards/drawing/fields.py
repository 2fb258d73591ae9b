"""What a panel's field configuration says of one series or column, overrides included."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# The first of Grafana's classic palette.
PALETTE = (
    "#7EB26D", "#EAB839", "#6ED0E0", "#EF843C", "#E24D42", "#1F78C1", "#BA43A9", "#705DA0", "#508642", "#CCA300",
    "#447EBC", "#C15C17", "#890F02", "#0A437C",
)  # fmt: skip
TEXT = "#CCCCDC"


def of(panel: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the properties of a field, nested ones under their dotted names (``custom.lineWidth``)."""
    defaults = panel["fieldConfig"]["defaults"]
    found = {key: value for key, value in defaults.items() if key != "custom"}
    found |= {f"custom.{key}": value for key, value in defaults.get("custom", {}).items()}
    for override in panel["fieldConfig"]["overrides"]:
        if _matches(override["matcher"], name):
            found |= {one["id"]: one["value"] for one in override["properties"]}
    return found


def _matches(matcher: Mapping[str, Any], name: str) -> bool:
    wanted = str(matcher["options"])
    if matcher["id"] == "byRegexp":
        pattern = wanted[1:-1] if wanted.startswith("/") else f"^(?:{wanted})$"
        return re.search(pattern, name) is not None
    return wanted == name


def colour(field: Mapping[str, Any], name: str, value: float | None = None) -> str:
    """Return the colour of a field, or of one of its values where thresholds decide."""
    mode = field.get("color", {}).get("mode")
    if mode == "fixed":
        return str(field["color"]["fixedColor"])
    if mode == "thresholds" and value is not None:
        steps = field["thresholds"]["steps"]
        chosen = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
        return TEXT if chosen == "text" else str(chosen)
    hashed = 0
    for character in name:
        hashed = (hashed * 31 + ord(character)) & 0xFFFFFFFF
    return PALETTE[hashed % len(PALETTE)]


def legend(template: str, labels: Mapping[str, str]) -> str:
    """Return the name of a series by Grafana's template of a legend."""
    return re.sub(r"{{\s*(\w+)\s*}}", lambda match: labels.get(match[1], ""), template)
