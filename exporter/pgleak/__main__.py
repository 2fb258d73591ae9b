"""``python -m pgleak``."""

from __future__ import annotations

import sys

from pgleak.cli import main

sys.exit(main())
