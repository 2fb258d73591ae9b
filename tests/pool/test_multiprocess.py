"""Real servers with several processes, one scrape: what is said of them is what the database says, whatever befalls them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

import servers
from pgleak.pool import reading
from pgleak.pool.merged import collect_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgleak.demo.embedded import EmbeddedPostgres

SERVING = Path(__file__).parent / "serving"
WORKERS = 2


@dataclass
class Shop:
    """A running application with a folder of state files, beside the database's own view of it."""

    server: EmbeddedPostgres
    name: str
    folder: Path
    process: subprocess.Popen[str]
    address: str = ""

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.address}{path}", timeout=10) as response:
            return str(response.read().decode())

    def scrape(self) -> dict[str, float]:
        """What any one worker shows, summed over labels."""
        totals: dict[str, float] = {}
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                totals[sample.name] = totals.get(sample.name, 0) + sample.value
        return totals

    def sidecar(self) -> dict[str, float]:
        """What `pgleak serve --pool-dir` shows, summed over labels."""
        totals: dict[str, float] = {}
        for family in collect_folder(self.folder):
            for sample in family.samples:
                totals[sample.name] = totals.get(sample.name, 0) + sample.value
        return totals

    def truth(self) -> set[int]:
        """The server's own list of this application's backends."""
        session = servers.open_connection(self.server)
        try:
            sql = "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
            return {pid for (pid,) in servers.query(session, sql, self.name)}
        finally:
            session.close()

    def told(self) -> set[int | None]:
        """The backends that the state files name."""
        pools = [pool for each in reading.read(self.folder).processes for pool in each.snapshot.pools]
        return {b.pid for pool in pools for b in (*pool.idle, *(held.backend for held in pool.checkouts))}

    def held(self) -> set[int | None]:
        pools = [pool for each in reading.read(self.folder).processes for pool in each.snapshot.pools]
        return {held.backend.pid for pool in pools for held in pool.checkouts}

    def contexts(self) -> set[str]:
        pools = [pool for each in reading.read(self.folder).processes for pool in each.snapshot.pools]
        return {held.context for pool in pools for held in pool.checkouts}

    def pids(self) -> set[int]:
        return {each.snapshot.process.pid for each in reading.read(self.folder).processes}

    def agrees(self) -> bool:
        """Whether files, sidecar and server say the same, and there is something to say."""
        truth = self.truth()
        return bool(truth) and truth == self.told() and self.sidecar()["sqlalchemy_pool_connections"] == len(truth)


@pytest.fixture
def open_shop(
    postgres16: EmbeddedPostgres, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Shop]]:
    name = f"shop-{abs(hash(request.node.name)) % 10**8}"
    folder = tmp_path / "state"
    (tmp_path / "broker" / "control").mkdir(parents=True)
    log = (tmp_path / "log").open("w")
    shops: list[Shop] = []

    def start(*command: str | Path, address: str = "", **options: object) -> Shop:
        environment = {
            **os.environ,
            "SHOP_DSN": f"postgresql+psycopg2://postgres@127.0.0.1:{postgres16.port}/postgres?application_name={name}",
            "SHOP_BROKER": str(tmp_path / "broker"),
            "PGLEAK_DIR": str(folder),
            "PYTHONPATH": str(SERVING),
            "PYTHONWARNINGS": "ignore",
        }
        process = subprocess.Popen(
            [sys.executable, *command],
            env=environment, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            start_new_session=True,
        )  # fmt: skip
        shops.append(Shop(postgres16, name, folder, process, address))
        return shops[-1]

    yield start
    for shop in shops:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shop.process.pid, signal.SIGKILL)
        shop.process.communicate()
    log.close()
    print((tmp_path / "log").read_text()[-3000:])  # noqa: T201  shown when the test fails


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(shop: Shop) -> bool:
    try:
        return bool(shop.get("/pid"))
    except OSError:
        assert shop.process.poll() is None, "the server ended"
        return False


@pytest.mark.parametrize("kind", ["sync", "gthread", "uvicorn.workers.UvicornWorker"])
def test_gunicorn(open_shop: Callable[..., Shop], kind: str) -> None:
    """Start, load, kill one worker, reload: each time the sum is the server's truth, and counters never fall."""
    module = "shop_asgi:app" if "uvicorn" in kind else "shop_wsgi:app"
    port = free_port()
    options = ("-k", kind, "-w", str(WORKERS), "-b", f"127.0.0.1:{port}", "--threads", "2", "--graceful-timeout", "3")
    shop = open_shop("-m", "gunicorn", *options, module, address=f"http://127.0.0.1:{port}")
    servers.wait_until(lambda: answers(shop), 30)

    def load_until_all_work() -> bool:
        for _ in range(5):
            shop.get("/order")
        return len(shop.pids()) >= WORKERS

    servers.wait_until(load_until_all_work, 20)
    leaked = {int(shop.get("/leak")) for _ in range(2)}
    servers.wait_until(lambda: leaked <= shop.held() and shop.agrees(), 10)
    before = shop.scrape()
    assert before["sqlalchemy_pool_processes"] == WORKERS
    assert before["sqlalchemy_pool_connections"] == len(shop.truth())

    victim = min(shop.pids())
    os.kill(victim, signal.SIGKILL)
    servers.wait_until(lambda: victim not in shop.pids(), 5)
    servers.wait_until(shop.agrees, 10)
    after_kill = shop.scrape()
    assert after_kill["sqlalchemy_pool_checkouts_total"] >= before["sqlalchemy_pool_checkouts_total"]

    old = shop.pids()
    shop.process.send_signal(signal.SIGHUP)
    servers.wait_until(lambda: not old & shop.pids(), 20)
    servers.wait_until(load_until_all_work, 20)
    servers.wait_until(shop.agrees, 10)
    after_reload = shop.scrape()
    assert after_reload["sqlalchemy_pool_checkouts_total"] > after_kill["sqlalchemy_pool_checkouts_total"]
    assert after_reload["sqlalchemy_pool_processes"] == WORKERS
    assert after_reload["pgleak_state_files_skipped"] == 0
    assert len(list(shop.folder.glob("*.state"))) <= WORKERS + 1  # those of ended ones are folded


def test_celery_prefork(open_shop: Callable[..., Shop], tmp_path: Path) -> None:
    """Start, load, kill one child, restart the worker; and a suspect names the task."""
    options = ("-P", "prefork", "-c", "2", "--without-gossip", "--without-mingle")
    shop = open_shop(Path(sys.executable).parent / "celery", "-A", "shop_tasks", "worker", *options)

    outbox = tmp_path / "outbox"
    outbox.mkdir()

    def send(task: str, number: int) -> None:
        """Messages come in whole: the worker reads a file as soon as it is there, written or not."""
        code = f"import shop_tasks\nfor _ in range({number}): shop_tasks.{task}.delay()"
        environment = {
            **os.environ,
            "SHOP_DSN": "postgresql+psycopg2://nobody@127.0.0.1/x",
            "SHOP_BROKER": str(tmp_path / "broker"),
            "SHOP_OUTBOX": str(outbox),
        }
        environment["PYTHONPATH"] = str(SERVING)
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, check=True, timeout=30)
        for message in outbox.iterdir():
            message.rename(tmp_path / "broker" / message.name)

    def checkouts() -> float:
        return shop.sidecar().get("sqlalchemy_pool_checkouts_total", 0)

    send("order", 10)
    servers.wait_until(lambda: checkouts() >= 10 and len(shop.pids()) == 2, 40)
    servers.wait_until(shop.agrees, 10)
    send("leak", 1)
    servers.wait_until(lambda: len(shop.held()) == 1 and shop.agrees(), 20)
    assert shop.contexts() == {"shop_tasks.leak"}

    victim = next(each.snapshot.process.pid for each in reading.read(shop.folder).processes
                  if any(pool.checkouts for pool in each.snapshot.pools))  # fmt: skip
    os.kill(victim, signal.SIGKILL)
    servers.wait_until(lambda: victim not in shop.pids() and not shop.held(), 10)
    assert checkouts() >= 11
    send("order", 10)
    servers.wait_until(lambda: checkouts() >= 21 and len(shop.pids()) == 2, 30)
    servers.wait_until(shop.agrees, 10)

    old = shop.pids()
    shop.process.send_signal(signal.SIGHUP)
    servers.wait_until(lambda: not old & shop.pids(), 20)
    assert checkouts() >= 21
    send("order", 10)
    servers.wait_until(lambda: checkouts() >= 31 and len(shop.pids()) == 2, 40)
    servers.wait_until(shop.agrees, 10)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_plain_multiprocessing(open_shop: Callable[..., Shop], method: str) -> None:
    shop = open_shop(SERVING / "shop_pool.py", method)
    servers.wait_until(lambda: len(shop.pids()) == WORKERS and len(shop.held()) >= WORKERS and shop.agrees(), 20)
    servers.wait_until(lambda: shop.sidecar()["sqlalchemy_pool_checkouts_total"] >= 30, 10)

    before = shop.sidecar()["sqlalchemy_pool_checkouts_total"]
    victim = min(shop.pids())
    os.kill(victim, signal.SIGKILL)
    servers.wait_until(lambda: victim not in shop.pids(), 5)
    assert shop.sidecar()["sqlalchemy_pool_checkouts_total"] >= before
    servers.wait_until(lambda: len(shop.pids()) == WORKERS and shop.agrees(), 20)
    servers.wait_until(lambda: shop.sidecar()["sqlalchemy_pool_checkouts_total"] >= before + 30, 10)

    old, before = shop.pids(), shop.sidecar()["sqlalchemy_pool_checkouts_total"]
    assert shop.process.stdin is not None
    shop.process.stdin.write("reload\n")
    shop.process.stdin.flush()
    servers.wait_until(lambda: not old & shop.pids(), 20)
    assert shop.sidecar()["sqlalchemy_pool_checkouts_total"] >= before
    servers.wait_until(lambda: len(shop.pids()) == WORKERS and shop.agrees(), 20)
