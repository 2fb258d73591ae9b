"""docs/testing.md shows what is really printed."""

from __future__ import annotations

import re
from pathlib import Path

from plugin_support import Project

DOCUMENT = Path(__file__).parents[2] / "docs" / "testing.md"


def test_the_document_shows_the_message_of_its_own_example(tmp_path: Path) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    project = Project(tmp_path)
    for name, code in re.findall(r"```python (\S+)\n(.*?)```", text, re.DOTALL):
        project.write(name, code)
    (shown,) = re.findall(r"```text\n(.*?)\n```", text, re.DOTALL)
    assert project.run("--pgleak").messages == {"test_next_order": shown}
