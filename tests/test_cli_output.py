"""Where the output cannot be written, or a command has not been installed, one line says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")  # each write to it fails as on a full disk


@pytest.mark.parametrize(
    "arguments",
    [("who", "--json"), ("who", "--once"), ("grants", "--server-version", "16"), ("serve", "--print-example")],
)
def test_a_full_disk_is_told_in_a_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "PYTHON"))}
    pools = ("--pool-dir", str(tmp_path)) if arguments[0] == "who" else ()
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pgleak", *arguments, *pools],
            stdout=full, stderr=subprocess.PIPE, text=True, env=environment, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "pgleak: [Errno 28] No space left on device\n"


def test_without_the_server_s_parts_it_says_how_to_install_them() -> None:
    exporter = str(Path(__file__).parents[1] / "exporter")
    without_packages = [sys.executable, "-S", "-m", "pgleak", "check"]
    environment = {**os.environ, "PYTHONPATH": exporter}
    done = subprocess.run(without_packages, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("pgleak: psycopg2, yaml, bcrypt not installed: ")
    assert done.stderr.endswith("`pip install '.[server]'` in a checkout of pgleak\n")  # it is in no package index
