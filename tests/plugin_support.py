"""Runs pytest on small projects, in a process of its own, and reads what it said of each test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECTS = Path(__file__).with_name("plugin") / "projects"
INI = """
    [pytest]
    asyncio_default_fixture_loop_scope = function
    """


@dataclass(frozen=True)
class Run:
    code: int
    output: str
    outcomes: Mapping[str, str]  # by test: passed, failed or skipped, of its own part
    messages: Mapping[str, str]  # by test: what pgleak said at its end; only where it said something


class Project:
    """A folder with tests."""

    def __init__(self, folder: Path, database: str = "sqlite:///shop.db", **environment: str) -> None:
        self.folder = folder
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "PGLEAK", "PG"))},
            "DATABASE_URL": database,
            "COLUMNS": "80",
            **environment,
        }
        self.write("pytest.ini", INI)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(dedent(text).lstrip(), encoding="utf-8")

    def copy(self, name: str) -> None:
        """One of the written projects, as a file of tests; the common conftest with it."""
        self.write(f"test_{name}.py", (PROJECTS / f"{name}.py").read_text(encoding="utf-8"))
        self.write("conftest.py", (PROJECTS / "conftest.py").read_text(encoding="utf-8"))

    def run(self, *arguments: str, python: tuple[str, ...] = ("-m", "pytest")) -> Run:
        report = self.folder / "report.xml"
        report.unlink(missing_ok=True)
        # Importing hypothesis would be half of what such a run takes.
        without = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
        command = [sys.executable, *python, f"--junitxml={report}", *without, *arguments]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        outcomes: dict[str, str] = {}
        messages: dict[str, str] = {}
        for case in ET.parse(report).iter("testcase") if report.exists() else ():
            name = case.get("name", "")
            outcomes.setdefault(name, "passed")
            for result in case:
                if result.tag == "error" and "left behind" in (result.text or ""):
                    messages[name] = result.text or ""
                elif result.tag in {"failure", "skipped", "error"}:
                    outcomes[name] = "skipped" if result.tag == "skipped" else "failed"
        return Run(done.returncode, done.stdout, outcomes, messages)


def leak_line(project: str, test: str) -> int:
    """The line marked LEAK in a test of a project, or in the last one before it."""
    lines = (PROJECTS / f"{project}.py").read_text(encoding="utf-8").splitlines()
    start = next(index for index, line in enumerate(lines) if re.search(rf"def {test}\b", line))
    end = next(
        (index for index in range(start + 1, len(lines)) if re.match(r"(async )?def |class |@", lines[index])),
        len(lines),
    )
    inside = [index for index in range(start, end) if lines[index].endswith("# LEAK")]
    before = [index for index in range(start) if lines[index].endswith("# LEAK")]
    return (inside[0] if inside else before[-1]) + 1
