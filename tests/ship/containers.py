"""The container image without a container engine: buildah builds it, and namespaces with a chroot run it.

Both need root, and neither needs a registry of images: the base is a small Debian that debootstrap makes once
and that is kept in the user's cache folder.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
BASE = "localhost/pgleak-base"
IMAGE = "localhost/pgleak-under-test"

_PACKAGES = ("python3", "python3-venv")
_CERTIFICATES = Path("/etc/ssl/certs")
# How this machine reaches its package index, if it has to be told.
_PIP_SETTINGS = {"cert", "index-url", "extra-index-url", "trusted-host", "proxy", "timeout"}
# What a container engine does: own processes and network, a root folder that cannot be written, an account
# without privileges, nothing of the caller's environment. The server comes in by its socket, as there is no
# network: a container that listens on every address must not be reachable from anywhere else.
_RUN = """
set -eu
root=$1 socket=$2 account=$3
shift 3
ip link set lo up
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 run "$root/run"
: > "$root/run/.s.PGSQL.5432"
mount --bind "$socket" "$root/run/.s.PGSQL.5432"
mount -o remount,bind,ro "$root"
cd /
exec chroot --userspec="$account" "$root" /usr/bin/env -i "$@"
"""


def run(*command: str | Path, **options: Any) -> str:
    """Run a program to its end and return what it printed; when it fails, so does the test, with all it said."""
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **options
        )
    except FileNotFoundError:
        pytest.fail(f"{command[0]} is missing; install it with: apt-get install {command[0]}", pytrace=False)
    if done.returncode:
        words = " ".join(map(str, command))
        pytest.fail(f"exit code {done.returncode} of: {words}\n{done.stdout}{done.stderr}", pytrace=False)
    return done.stdout


def base_archive() -> Path:
    """Return the base image's files as an archive; debootstrap makes it when the cache folder lacks it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgleak"
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    archive = cache / f"{'+'.join((release, *_PACKAGES))}.tar"
    if archive.exists():
        return archive
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        root, packed = Path(folder, "root"), Path(folder, "packed.tar")
        run("debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", release, root)
        without = [f"--exclude=./{path}/*" for path in ("dev", "var/cache/apt", "var/lib/apt/lists")]
        run("tar", "-C", root, "--one-file-system", *without, "-cf", packed, ".")
        packed.rename(archive)
    return archive


def _pip_settings() -> str:
    lines = ["[global]"]
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        setting = name.rpartition(".")[2].removeprefix("default-")
        if setting in _PIP_SETTINGS:
            lines.append(f"{setting} = {ast.literal_eval(value)}")
    return "\n".join(dict.fromkeys(lines)) + "\n"


@dataclass(frozen=True, slots=True)
class Image:
    """A built image, unpacked."""

    root: Path
    config: Mapping[str, Any]
    added_bytes: int  # on top of its base
    buildah: tuple[str | Path, ...]
    container: str

    def run(self, *command: str) -> str:
        """Run one command in it to its end, as buildah does."""
        return run(*self.buildah, "run", "--isolation=chroot", "--network=host", self.container, "--", *command)


@contextlib.contextmanager
def built(version: str) -> Iterator[Image]:
    """Build the Dockerfile in a storage of its own, which is removed in the end."""
    if os.geteuid() != 0:
        pytest.fail("building and running an image without a container engine takes root", pytrace=False)
    with tempfile.TemporaryDirectory(prefix="pgleak-image-") as folder:
        storage = Path(folder)
        buildah = (
            "buildah",
            "--root",
            storage / "root",
            "--runroot",
            storage / "run",
            "--storage-driver=vfs",
        )
        pip_settings = storage / "pip.conf"
        pip_settings.write_text(_pip_settings())

        scratch = run(*buildah, "from", "scratch").strip()
        run(*buildah, "add", scratch, base_archive(), "/")
        run(*buildah, "commit", "--rm", scratch, BASE)
        run(
            *buildah, "build", "--isolation=chroot", "--network=host", "--format=docker", "--pull-never",
            f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro", f"--volume={pip_settings}:/etc/pip.conf:ro",
            f"--build-arg=BASE={BASE}", f"--build-arg=VERSION={version}", f"--tag={IMAGE}", ROOT,
        )  # fmt: skip
        inspected = json.loads(run(*buildah, "inspect", "--type=image", IMAGE))
        container = run(*buildah, "from", "--pull-never", IMAGE).strip()
        root = Path(run(*buildah, "mount", container).strip())
        yield Image(
            root=root,
            config=inspected["Docker"]["config"],
            added_bytes=sum(layer["size"] for layer in json.loads(inspected["Manifest"])["layers"][1:]),
            buildah=buildah,
            container=container,
        )
        run(*buildah, "rm", "--all")


@dataclass(frozen=True, slots=True)
class Container:
    """A running container; its processes end with the ``with`` block."""

    launcher: subprocess.Popen[bytes]
    pid: int  # of the program, which is process 1 inside
    output: Path

    def execute(self, root: Path, account: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside the program, as ``docker exec`` does."""
        return self._beside("chroot", f"--userspec={account}", root, *command)

    def _beside(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--target={self.pid}", "--net", "--", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            stdin=subprocess.DEVNULL,
        )

    def fetch(self, path: str, port: int = 10432) -> str:
        """Return what the exporter answers; empty when it does not."""
        address = f"http://127.0.0.1:{port}{path}"
        client = f"import urllib.request as u; print(u.urlopen({address!r}, timeout=20).read().decode())"
        return self._beside(sys.executable, "-c", client).stdout

    def send(self, number: signal.Signals) -> None:
        """Send the program a signal, as ``docker kill`` does."""
        os.kill(self.pid, number)

    def status(self) -> dict[str, str]:
        """Return what the kernel says about the program."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def processes_of(root: Path) -> list[int]:
    """Return the processes that have this folder for their root: what runs in an unpacked image."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if (process / "root").readlink() == root:
                found.append(int(process.name))
    return found


def _children(launcher: int) -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]
    except OSError:  # it has ended, and with it its only child
        return []


def _program_of(launcher: int) -> int:
    # The shell that sets up the namespaces becomes the program.
    return next((pid for pid in _children(launcher) if Path(f"/proc/{pid}/root").readlink() != Path("/")), 0)


@contextlib.contextmanager
def running(image: Image, socket: Path, environment: Sequence[str], folder: Path) -> Iterator[Container]:
    """Start the image's own command as its own user; ``socket`` becomes ``/run/.s.PGSQL.5432`` inside."""
    config, output = image.config, folder / "output"
    command = [*config["Env"], *environment, *config["Entrypoint"], *config["Cmd"]]
    namespaces = ["--mount", "--pid", "--net", "--fork"]
    with output.open("wb") as log:
        launcher = subprocess.Popen(
            ["unshare", *namespaces, "sh", "-c", _RUN, "run", image.root, socket, config["User"], *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        pid = servers.wait_until(
            lambda: launcher.poll() is not None or _program_of(launcher.pid), what="the container to start"
        )
        if launcher.poll() is not None:
            pytest.fail(f"the container ended at once:\n{output.read_text()}", pytrace=False)
        yield Container(launcher, pid, output)
    finally:
        # The program itself, as process 1: all others of its namespace go with it, and then its launcher by itself. To
        # kill the launcher would leave it behind: unshare's --kill-child is a request to the kernel that a change of
        # account takes back (prctl(2), PR_SET_PDEATHSIG), and this one changes its account.
        if launcher.poll() is None:
            for child in _children(launcher.pid):
                os.kill(child, signal.SIGKILL)
        launcher.wait(timeout=30)
        left = processes_of(image.root)
        assert not left, f"processes of the image are left running: {left}"


def find_tools(root: Path) -> list[str]:
    """Return the compilers and installers in an unpacked image."""
    programs = {"gcc", "g++", "cc", "c++", "make", "pip", "pip3"}
    modules = {"pip", "ensurepip", "setuptools"}
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.name in (programs if path.parent.name in {"bin", "sbin"} else modules)
    )


def require(*programs: str) -> None:
    """Fail when one of the programs is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing; `.ci/run` installs it", pytrace=False)
