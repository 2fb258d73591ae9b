"""The dashboards against Grafana's own published types (npm: @grafana/schema), checked by TypeScript's compiler."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import build
from ship.containers import run

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(300)

PACKAGES = ("@grafana/schema@13.2.3", "typescript@5.9.3")
_TYPES = Path(__file__).with_name("grafana_types.ts")
_OPTIONS = ("--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--moduleResolution", "nodenext")


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], str]:
    """Says what the compiler has against a dashboard."""
    folder = tmp_path_factory.mktemp("grafana")
    options = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
    run("npm", "install", *options, *PACKAGES, cwd=folder)
    (folder / _TYPES.name).write_text(_TYPES.read_text())

    def check(board: dict[str, Any]) -> str:
        source = folder / "board.ts"
        body = json.dumps(board, indent=1)
        source.write_text(f'import type {{ Board }} from "./{_TYPES.stem}.js";\nexport const board: Board = {body};\n')
        compiler = ["node", "node_modules/typescript/bin/tsc", *_OPTIONS, source.name]
        done = subprocess.run(compiler, cwd=folder, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    return check


@pytest.mark.parametrize("path", sorted(build.FOLDER.glob("pgleak-*.json")), ids=lambda path: str(path.stem))
def test_a_dashboard_is_of_grafanas_type(path: Path, complaints: Callable[[dict[str, Any]], str]) -> None:
    assert complaints(json.loads(path.read_text())) == ""


def test_the_compiler_sees_a_mistake_in_each_part(complaints: Callable[[dict[str, Any]], str]) -> None:
    board = json.loads((build.FOLDER / "pgleak-connections.json").read_text())
    graph = next(panel for panel in board["panels"] if panel["type"] == "timeseries")
    graph["options"]["legend"]["placement"] = "below"
    assert "below" in complaints(board)
    graph["options"]["legend"]["placement"] = "bottom"
    graph["fieldConfig"]["defaults"]["custom"]["lineColour"] = "red"
    assert "lineColour" in complaints(board)
    del graph["fieldConfig"]["defaults"]["custom"]["lineColour"]
    board["shemaVersion"] = 42
    assert "shemaVersion" in complaints(board)
