"""Numbers beyond all measure are mistakes like others: named, and no traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgleak.settings import SettingsError, from_yaml

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"timeouts: {{scrape: {'9' * 400}}}", "timeouts.scrape"),
        (f"timeouts: {{scrape: 0x{'f' * 5000}}}", "timeouts.scrape"),
        (f"caps: {{datname: 0x{'f' * 5000}}}", "caps.datname"),
    ],
)
def test_a_huge_number_is_a_mistake_with_its_place(tmp_path: Path, text: str, place: str) -> None:
    file = tmp_path / "pgleak.yml"
    file.write_text(f"targets: [{{name: a}}]\n{text}\n")
    with pytest.raises(SettingsError) as caught:
        from_yaml(file, environ={})
    assert f"{place}: must be" in str(caught.value)
