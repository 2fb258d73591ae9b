"""What is uploaded: the sdist, the wheel made from it, and what a user gets who installs that wheel."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import pgleak
from ship.containers import ROOT, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment that knows nothing of this checkout."""

    folder: Path

    def run(self, program: str, *arguments: str | Path) -> str:
        # Elsewhere, and without this process's search path: only what is installed can be imported.
        return run(self.folder / "bin" / program, *arguments, cwd=self.folder, env={"PATH": "/usr/bin:/bin"})

    def install(self, *requirements: str | Path) -> None:
        # With the caller's environment, which may say how the package index is reached.
        run(self.folder / "bin" / "python", "-m", "pip", "install", "--quiet", *requirements)


def new_environment(folder: Path) -> Environment:
    run(sys.executable, "-m", "venv", folder)
    return Environment(folder)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = new_environment(tmp_path_factory.mktemp("builder"))
    environment.install("build", "twine")
    return environment


@pytest.fixture(scope="module")
def distributions(builder: Environment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist under ``.gz``, and the wheel that was built from it under ``.whl``."""
    folder = tmp_path_factory.mktemp("dist")
    run(builder.folder / "bin" / "python", "-m", "build", "--outdir", folder, ROOT)
    return {path.suffix: path for path in folder.iterdir()}


def test_a_package_index_takes_both(builder: Environment, distributions: dict[str, Path]) -> None:
    builder.run("python", "-m", "twine", "--no-color", "check", "--strict", *distributions.values())


def test_the_wheel_holds_the_package_and_nothing_else(distributions: dict[str, Path]) -> None:
    with zipfile.ZipFile(distributions[".whl"]) as wheel:
        names = set(wheel.namelist())
    source = ROOT / "exporter"
    there = {str(path.relative_to(source)) for path in source.glob("pgleak/**/*") if path.is_file()}
    wanted = {name for name in there if "__pycache__" not in name}
    information = f"pgleak-{pgleak.__version__}.dist-info"
    assert {name for name in names if not name.startswith(information)} == wanted
    assert {"pgleak/py.typed", f"{information}/licenses/LICENSE"} <= names


def test_the_sdist_holds_what_its_user_reads(distributions: dict[str, Path]) -> None:
    with tarfile.open(distributions[".gz"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "exporter/pgleak/pgleak.example.yml"} <= names
    assert {"exporter/pgleak/py.typed", "dashboards/rules.yml", "dashboards/pgleak-connections.json"} <= names


def test_an_installed_wheel_runs(distributions: dict[str, Path], tmp_path: Path) -> None:
    """Inside an application, with no driver but its own, and with the extra as the exporter."""
    environment = new_environment(tmp_path / "fresh")
    environment.install(distributions[".whl"])
    loaded = "import pgleak, sys; print(pgleak.__version__, sorted({'psycopg2', 'yaml'} & set(sys.modules)))"
    assert environment.run("python", "-c", loaded).strip() == f"{pgleak.__version__} []"

    environment.install(f"{distributions['.whl']}[server]")
    assert environment.run("pgleak", "--version").split()[-1] == pgleak.__version__
    assert "--listen" in environment.run("pgleak", "serve", "--help")
    environment.run("python", "-m", "pip", "check")
