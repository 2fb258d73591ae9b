"""Write the Grafana dashboards (dashboards/*.json) from boards/ and the catalogue; with --check, fail when they differ.

python dashboards/build.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from boards import application, connections, pool

FOLDER = Path(__file__).resolve().parent


def texts() -> dict[Path, str]:
    """Return what each file must hold."""
    boards = [connections.board(), application.board(), pool.board()]
    return {FOLDER / f"{board.uid}.json": json.dumps(board.json(), indent=2) + "\n" for board in boards}


def main() -> int:
    """Write, or check."""
    differing = [
        path for path, text in texts().items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv[1:]:
        for path in differing:
            sys.stderr.write(f"{path.name} is not what boards/ says: run python dashboards/build.py\n")
        return 1 if differing else 0
    for path in differing:
        path.write_text(texts()[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
