"""What a panel's field configuration says of one series or column, overrides included."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# What Grafana takes a colour from for a name that has none of its own.
PALETTE = (
    "#73BF69", "#F2CC0C", "#5794F2", "#FF9830", "#F2495C", "#B877D9", "#37872D", "#E0B400", "#1F60C4", "#FA6400",
    "#C4162A", "#8F3BB8", "#C8F2C2", "#FFF899", "#C0D8FF", "#FFCB7D", "#FFA6B0", "#DEB6F2", "#447EBC", "#C15C17",
    "#890F02", "#0A437C", "#6D1F62", "#584477", "#B7DBAB", "#F4D598", "#70DBED", "#F9BA8F", "#F29191", "#82B5D8",
    "#E5A8E2", "#AEA2E0", "#629E51", "#E5AC0E", "#64B0C8", "#E0752D", "#BF1B00", "#0A50A1", "#962D82", "#614D93",
    "#9AC48A", "#F2C96D", "#65C5DB", "#F9934E", "#EA6460", "#5195CE", "#D683CE", "#806EB7", "#3F6833", "#967302",
    "#2F575E", "#99440A", "#58140C", "#052B51", "#511749", "#3F2B5B", "#E0F9D7", "#FCEACA", "#CFFAFF", "#F9E2D2",
    "#FCE2DE", "#BADFF4", "#F9D9F9", "#DEDAF7",
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
        if mapping := _mapping(field, value):
            return str(mapping["color"])
        steps = field["thresholds"]["steps"]
        chosen = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
        return TEXT if chosen == "text" else str(chosen)
    return by_name(name)


def mapped(field: Mapping[str, Any], value: float) -> str:
    """Return the text that stands for this value; "" where it is shown as it is."""
    return str(_mapping(field, value).get("text", ""))


def _mapping(field: Mapping[str, Any], value: float) -> Mapping[str, Any]:
    options = [one["options"] for one in field.get("mappings", ()) if one["type"] == "value"]
    found: Mapping[str, Any] = next((one[f"{value:g}"] for one in options if f"{value:g}" in one), {})
    return found


def by_name(name: str) -> str:
    """Return the colour that Grafana gives a name: by Bernstein's hash of it, from its end."""
    hashed = 5381
    for character in reversed(name):
        hashed = (hashed * 33 ^ ord(character)) & 0xFFFFFFFF
    return PALETTE[hashed % len(PALETTE)]


def legend(template: str, labels: Mapping[str, str]) -> str:
    """Return the name of a series by Grafana's template of a legend."""
    return re.sub(r"{{\s*(\w+)\s*}}", lambda match: labels.get(match[1], ""), template)
