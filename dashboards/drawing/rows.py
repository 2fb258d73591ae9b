"""The rows of a table panel: what its transformations ``merge`` and ``organize`` make of the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asking.prometheus import Series

Cell = str | float


def merged(answers: Mapping[str, Sequence[Series]]) -> list[dict[str, Cell]]:
    """Join the answers, by reference of the query: rows that agree in all labels they have in common become one."""
    rows: list[dict[str, Cell]] = []
    for reference, answer in answers.items():
        missing = dict.fromkeys((label for series in answer for label in series.labels), "")
        for series in answer:
            labels = missing | series.labels  # as Grafana has it: a table with a column for each label
            column = f"Value #{reference}"
            new: dict[str, Cell] = {**labels, column: series.last}
            found = [row for row in rows if column not in row and _agree(row, labels)]
            for row in found:
                row.update(new)
            if not found:
                rows.append(new)
    return rows


def _agree(row: Mapping[str, Cell], labels: Mapping[str, str]) -> bool:
    common = row.keys() & labels.keys()
    return bool(common) and all(row[name] == labels[name] for name in common)


def organised(
    panel: Mapping[str, Any], rows: Sequence[Mapping[str, Cell]]
) -> tuple[list[str], list[list[Cell | None]]]:
    """Return the titles of the columns, and the rows in the panel's order."""
    options = next(one["options"] for one in panel["transformations"] if one["id"] == "organize")
    names = options["renameByName"]
    fields = sorted(names, key=options["indexByName"].__getitem__)
    there = [field for field in fields if any(field in row for row in rows)]
    sort = panel["options"]["sortBy"][0]
    by = next(field for field in fields if names[field] == sort["displayName"])

    def key(row: Mapping[str, Cell]) -> tuple[bool, float]:
        value = row.get(by)
        return isinstance(value, float), value if isinstance(value, float) else 0.0

    ordered = sorted(rows, key=key, reverse=sort["desc"])
    return [names[field] for field in there], [[row.get(field) for field in there] for row in ordered]
