"""deploy/ as Compose, Kubernetes and Prometheus Operator read it: with their own Go packages (manifest_reader/)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ship.containers import ROOT, require, run

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(900)  # the first build compiles much of Kubernetes

DEPLOY = ROOT / "deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
_SOURCE = Path(__file__).with_name("manifest_reader")


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Says what they have against some files."""
    require("go")
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(_SOURCE, folder, dirs_exist_ok=True)  # the sums of all that is needed are written beside it
    run("go", "build", "-mod=mod", "-o", folder / "reader", ".", cwd=folder)

    def read(kind: str, *paths: Path) -> str:
        environment = {**os.environ, "PGLEAK_PASSWORD": "secret"}
        done = subprocess.run(
            [folder / "reader", kind, *paths], env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    return read


def test_compose_takes_its_file(complaints: Callable[..., str]) -> None:
    assert complaints("compose", DEPLOY / "compose.yml") == ""


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: str(path.stem))
def test_kubernetes_takes_each_manifest_with_every_pod_restricted(path: Path, complaints: Callable[..., str]) -> None:
    assert complaints("kubernetes", path) == ""


@pytest.mark.parametrize(
    ("kind", "path", "right", "wrong", "said"),
    [
        ("compose", DEPLOY / "compose.yml", "cap_drop:", "cap_dorp:", "cap_dorp"),
        ("compose", DEPLOY / "compose.yml", "  reports:\n", "  repords:\n", "reports"),
        ("kubernetes", KUBERNETES[0], "emptyDir", "emtpyDir", "emtpyDir"),
        ("kubernetes", KUBERNETES[0], "runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"),
        ("kubernetes", KUBERNETES[0], "drop: [ALL]", "drop: [CHOWN]", "unrestricted capabilities"),
        ("kubernetes", DEPLOY / "kubernetes" / "monitors.yaml", "relabelings", "relabeling", "relabeling"),
        ("kubernetes", DEPLOY / "kubernetes" / "rules.yaml", "keep_firing_for", "keep_firing", "keep_firing"),
    ],
)
def test_a_mistake_is_seen(
    kind: str, path: Path, right: str, wrong: str, said: str, complaints: Callable[..., str], tmp_path: Path
) -> None:
    text = path.read_text()
    assert right in text
    changed = tmp_path / path.name
    changed.write_text(text.replace(right, wrong, 1))
    assert said in complaints(kind, changed)
