"""The first run makes its environment, and ends in one line when somebody has had enough."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from servers import wait_until

ROOT = Path(__file__).parents[1]


def test_ctrl_c_while_the_environment_is_made_says_one_line_and_leaves_no_file_behind(tmp_path: Path) -> None:
    checkout, scratch = tmp_path / "checkout", tmp_path / "scratch"
    scratch.mkdir()
    (checkout / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "bootstrap", checkout / "tools")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    first_run = subprocess.Popen(
        [checkout / "tools" / "bootstrap", "demo", "true"],
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "TMPDIR": str(scratch)},
        start_new_session=True,
    )
    try:
        wait_until((checkout / ".venv" / "bin").exists, timeout=30, what="the environment to be begun")
        os.killpg(first_run.pid, signal.SIGINT)  # as a terminal does: to the shell and to what it waits for
        said = first_run.communicate(timeout=30)[1]
    finally:
        if first_run.poll() is None:
            os.killpg(first_run.pid, signal.SIGKILL)
            first_run.wait(10)
    assert first_run.returncode == 130
    assert said.splitlines()[1:] == ["pgleak: interrupted; the next run goes on from here"], said
    assert list(scratch.iterdir()) == []
