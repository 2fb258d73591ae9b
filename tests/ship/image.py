"""The container image, really built and run. It takes root and a minute or two: only ``.ci/run`` asks for it."""

from __future__ import annotations

import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

import pgleak
import servers
from ship import containers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgleak.demo.embedded import EmbeddedPostgres
    from ship.containers import Container, Image

pytestmark = pytest.mark.timeout(1500)  # the first run makes the base

PASSWORD = "not-to-be-seen"


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    containers.require("buildah", "debootstrap", "unshare", "nsenter", "ip")
    with containers.built(pgleak.__version__) as image:
        yield image


@pytest.fixture
def container(image: Image, postgres18: EmbeddedPostgres, tmp_path: Path) -> Iterator[Container]:
    """The image as it is, started with nothing but the address of a server."""
    socket = postgres18.socket_dir / f".s.PGSQL.{postgres18.port}"
    dsn = f"PGLEAK_DSN=postgresql://postgres:{PASSWORD}@/postgres?host=/run&port=5432"
    with containers.running(image, socket, [dsn], tmp_path) as container:
        servers.wait_until(
            lambda: container.fetch("/-/healthy") or container.launcher.poll() is not None,
            timeout=30,
            what="the exporter in the container to answer",
        )
        assert container.launcher.poll() is None, container.output.read_text()
        yield container


def health(image: Image, container: Container, *environment: str) -> int:
    """The exit code of the image's own health check, with the container's environment."""
    kind, *command = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    clean = ["/usr/bin/env", "-i", *image.config["Env"], *environment]
    return container.execute(image.root, image.config["User"], *clean, *command).returncode


def test_the_container_exports_a_server(container: Container) -> None:
    """Given a connection string and nothing else, on a root folder that cannot be written."""
    text = container.fetch("/metrics")
    assert re.search(r"^pgleak_up\{[^}]*\} 1(\.0)?$", text, re.MULTILINE), text + container.output.read_text()
    assert PASSWORD not in text + container.output.read_text()


def test_the_program_is_nobody_in_particular(container: Container) -> None:
    status = container.status()
    assert status["Uid"].split() == ["65532"] * 4
    assert status["Gid"].split() == ["65532"] * 4
    assert int(status["CapEff"], 16) == 0


def test_the_health_check_tells_an_exporter_that_answers_from_one_that_is_stuck(
    image: Image, container: Container
) -> None:
    assert health(image, container) == 0
    container.send(signal.SIGSTOP)
    assert health(image, container) == 1
    container.send(signal.SIGCONT)
    assert health(image, container) == 0


def test_the_health_check_asks_where_the_exporter_listens(
    image: Image, postgres18: EmbeddedPostgres, tmp_path: Path
) -> None:
    socket, elsewhere = postgres18.socket_dir / f".s.PGSQL.{postgres18.port}", "PGLEAK_LISTEN=127.0.0.1:9187"
    with containers.running(image, socket, ["PGHOST=/run", elsewhere], tmp_path) as container:
        servers.wait_until(lambda: container.fetch("/-/healthy", 9187), timeout=30, what="an answer on the other port")
        assert health(image, container, elsewhere) == 0
        assert health(image, container) == 1, "nobody listens there"


def test_the_container_ends_quickly_when_it_is_told_to(image: Image, container: Container) -> None:
    """As process 1 a program has no default reaction to a signal: it must bring its own."""
    started = time.monotonic()
    container.send(signal.Signals[image.config["StopSignal"]])
    assert container.launcher.wait(timeout=20) == 0, container.output.read_text()
    assert time.monotonic() - started < 5
    assert "Traceback" not in container.output.read_text()


def test_nothing_of_a_container_is_left_when_it_ends(
    image: Image, postgres18: EmbeddedPostgres, tmp_path: Path
) -> None:
    """Neither when it is told to end nor when it is removed while it runs."""
    socket = postgres18.socket_dir / f".s.PGSQL.{postgres18.port}"
    with containers.running(image, socket, ["PGHOST=/run"], tmp_path) as container:
        assert containers.processes_of(image.root) == [container.pid]
    assert containers.processes_of(image.root) == []


def test_nothing_in_the_image_builds_or_installs(image: Image) -> None:
    assert containers.find_tools(image.root) == []
    assert not (image.root / "build").exists()
    assert not (image.root / "root" / ".cache").exists()


def test_the_image_says_what_it_is(image: Image) -> None:
    assert image.run("pgleak", "--version").split()[-1] == pgleak.__version__
    assert image.config["Labels"]["org.opencontainers.image.version"] == pgleak.__version__
    assert image.config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert list(image.config["ExposedPorts"]) == ["10432/tcp"]
    user = image.config["User"].partition(":")[0]
    assert user.isdigit()
    assert user != "0"


def test_the_image_adds_little_to_its_base(image: Image) -> None:
    assert image.added_bytes < 60e6
