"""What deploy/ says fits pgleak, PostgreSQL and Prometheus. What Compose and Kubernetes say to it: ship/manifests.py."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from benchmarks import series
from benchmarks.rules.history import DAY, seconds

import prometheus_rule
import servers
from pgleak import cli, settings
from pgleak.demo.binaries import find_binaries
from pgleak.demo.embedded import LOOPBACK, free_port
from rules_support import ROOT, RULES, promtool, rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from conftest import NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres

PASSWORD = "p'ss \"word"
COMPOSE = ROOT / "deploy" / "compose.yml"
DEPLOY = ROOT / "docs" / "deploy.md"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
KUBERNETES = [
    document
    for path in sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
PODS = {each["metadata"]["name"]: each["spec"]["template"] for each in KUBERNETES if each["kind"] == "Deployment"}

SETTINGS = {
    each["metadata"]["name"]: yaml.safe_load(each["data"]["pgleak.yml"])
    for each in KUBERNETES
    if each["kind"] == "ConfigMap"
}


@pytest.fixture
def database(new_postgres: NewPostgres, tmp_path: Path) -> EmbeddedPostgres:
    """PostgreSQL with compose's settings, after its first start there."""
    _, *options = SERVICES["postgres"]["command"]
    given = dict(option.split("=") for option in options[1::2])
    server = new_postgres(18, password_users=("shop", "pgleak", "pgleak_canary"), **given)
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    first_start(server, {"POSTGRES_PASSWORD": PASSWORD})
    return server


def first_start(server: EmbeddedPostgres, environment: dict[str, str]) -> None:
    """As the image's entrypoint does: it takes POSTGRES_PASSWORD_FILE out of the environment, the password into it."""
    where = {"PGHOST": str(server.socket_dir), "PGPORT": str(server.port), "PATH": f"{find_binaries(18)}:/usr/bin:/bin"}
    script = ROOT / "deploy" / "compose" / "roles.sh"
    subprocess.run([script], env=where | environment, check=True, timeout=30)


@pytest.fixture
def config(database: EmbeddedPostgres, tmp_path: Path) -> Path:
    """Compose's settings of pgleak, at addresses that are free here."""
    text = (ROOT / "deploy" / "compose" / "pgleak.yml").read_text()
    for there, here in (
        ("@postgres/", f"@{LOOPBACK}:{database.port}/"),
        ("/run/secrets/password", str(tmp_path / "password")),
        ("/run/pgleak", str(tmp_path / "reports")),
        ("0.0.0.0:10432", f"{LOOPBACK}:{free_port()}"),
    ):
        assert there in text
        text = text.replace(there, here)
    path = tmp_path / "pgleak.yml"
    path.write_text(text)
    return path


def test_the_roles_are_those_that_pgleak_needs(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "reports").mkdir(mode=0o700)  # a volume, there; nobody has reported yet
    assert cli.main(["check", "--config", str(config)]) == 0
    said, _, pools = capsys.readouterr().out.partition("pools (")
    assert "no process reports" in pools
    assert not re.search(r"warn|fail", said, re.IGNORECASE), said
    assert PASSWORD not in said


def test_each_role_has_a_password(database: EmbeddedPostgres) -> None:
    """Whatever pg_hba.conf asks for: PostgreSQL takes an empty one for none, says so and goes on."""
    with contextlib.closing(servers.open_connection(database)) as session:
        found = servers.query(session, "SELECT rolname FROM pg_authid WHERE rolpassword IS NOT NULL")
    assert {name for (name,) in found} >= {"shop", "pgleak", "pgleak_canary"}


@pytest.mark.parametrize("environment", [{}, {"POSTGRES_PASSWORD": ""}], ids=["none", "empty"])
def test_without_a_password_there_are_no_roles(environment: dict[str, str], new_postgres: NewPostgres) -> None:
    server = new_postgres(18)
    with pytest.raises(subprocess.CalledProcessError):
        first_start(server, environment)
    with contextlib.closing(servers.open_connection(server)) as session:
        assert servers.query(session, "SELECT rolname FROM pg_roles WHERE rolname = 'shop'") == []


@contextlib.contextmanager
def _running(arguments: list[str], environment: Mapping[str, str], folder: Path) -> Iterator[None]:
    with (folder / "log").open("a") as log:
        process = subprocess.Popen([sys.executable, *arguments], env={**environment}, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


def test_the_shop_and_pgleak_beside_it_tell_which_line_leaks(
    config: Path, database: EmbeddedPostgres, tmp_path: Path
) -> None:
    """The three services as processes, with what compose puts into their environment."""
    wanted = SERVICES["shop"]["environment"]
    assert set(wanted) == {"DATABASE_URL", "PGLEAK_DIR", "PORT"}
    url = wanted["DATABASE_URL"].replace("@postgres/", f"@{LOOPBACK}:{database.port}/")
    quoted = url.replace("${PGLEAK_PASSWORD}", PASSWORD.replace(" ", "%20").replace('"', "%22").replace("'", "%27"))
    given = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": quoted,
        "PGLEAK_DIR": str(tmp_path / "reports"),
        "PORT": str(free_port()),
        "PGLEAK_DEAD_OWNER": "2",  # seconds; the default is too long for a test
    }
    address = settings.from_yaml(config).listen
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def overdue() -> bool:
        with contextlib.suppress(OSError), opener.open(f"http://{LOOPBACK}:{address.port}/metrics", timeout=10) as page:
            return bool(
                re.search(
                    r'pgleak_overdue_backends\{server="orders",application_name="shop",site="\w+:ship_next_order"\} [1-9]',
                    page.read().decode(),
                )
            )
        return False

    python, *orders = SERVICES["customers"]["command"]
    assert python == "python"
    assert f":{wanted['PORT']}/" in orders[-1]
    orders = [each.replace(f":{wanted['PORT']}/", f":{given['PORT']}/") for each in orders]
    plain = {"PATH": os.environ["PATH"]}
    with (
        _running(["-m", "pgleak.demo.app"], given, tmp_path),
        _running(orders, plain, tmp_path),
        _running(["-m", "pgleak", "serve", "--config", str(config)], plain, tmp_path),
    ):
        servers.wait_until(overdue, timeout=60, what="the line that leaks")


def test_prometheus_takes_its_configuration_and_finds_the_rules(tmp_path: Path) -> None:
    """In the places to which compose mounts them."""
    for mount in SERVICES["prometheus"]["volumes"][:2]:
        source, target, mode = mount.split(":")
        assert mode == "ro"
        (tmp_path / Path(target).name).write_text((COMPOSE.parent / source).read_text())
    assert "SUCCESS: 1 rule files found" in promtool("check", "config", tmp_path / "prometheus.yml")


def test_the_series_are_as_many_as_counting_them_gives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["series"])
    series.main()
    counted = capsys.readouterr().out
    page = DEPLOY.read_text()
    assert counted in page, f"docs/deploy.md, How many series: {counted}"
    rate = re.findall(r"^([\d,]+) samples a second", counted, re.MULTILINE)[0]
    day = int(rate.replace(",", "")) * DAY / 1e9
    assert f"{rate} x {DAY:,} = {1000 * day:.0f} million samples a day" in page
    # One to two bytes each.
    assert f"{day:.1f} to {2 * day:.1f} GB, {30 * day:.0f} to {60 * day:.0f} GB in 30 days" in page


def test_the_rules_look_back_as_far_as_the_page_says() -> None:
    looks = [
        seconds(span or "0s") + seconds(offset or "0s")
        for rule in rules(RULES)
        for span, offset in re.findall(r"(?:\[(\w+)[^\]]*\])?(?:\s+offset\s+(\w+))?", rule.expr)
    ]
    assert max(looks) % DAY == 0
    assert f"The rules look back at most {max(looks) // DAY} days" in DEPLOY.read_text()


def test_what_compose_mounts_is_there() -> None:
    mounts = [mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())]
    files = [COMPOSE.parent / mount for mount in mounts if mount.startswith(".")]
    assert len(files) > 5
    assert [path for path in files if not path.exists()] == []
    boards = {path.name for path in (ROOT / "dashboards").glob("pgleak-*.json")}
    assert boards <= {path.name for path in files}


def test_compose_opens_ports_on_loopback_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_service_may_more_than_it_needs() -> None:
    """The image of PostgreSQL begins as root, to make its volume its own."""
    for name, service in SERVICES.items():
        assert service["security_opt"] == ["no-new-privileges"], name
        assert service.get("cap_drop") == (None if name == "postgres" else ["ALL"]), name
    ours = [service for service in SERVICES.values() if "build" in service or service["image"] == "pgleak-shop"]
    assert len(ours) == 3
    assert {service["user"] for service in ours} == {"65532:65532"}


def test_what_is_sent_on_is_all_that_boards_and_rules_ask_for() -> None:
    """By the page's `write_relabel_configs`."""
    (kept,) = re.findall(r'source_labels: \[__name__\], regex: "([^"]+)", action: keep', DEPLOY.read_text())
    boards = " ".join(path.read_text() for path in (ROOT / "dashboards").glob("pgleak-*.json"))
    asked = set(re.findall(r"\b(?:pgleak|sqlalchemy_pool|process)_\w+(?={)|\b\w+:\w+:\w+(?={)", boards))
    assert "process_start_time_seconds" in asked
    recorded = {rule.name for rule in rules(RULES) if not rule.is_alert}
    scraped = {metric for rule in rules(RULES) for metric in rule.metrics}
    assert [name for name in asked | recorded | scraped if not re.fullmatch(kept, name)] == []


def test_a_part_of_the_servers_can_be_taken_as_the_page_says(tmp_path: Path) -> None:
    (shard,) = re.findall(r"```yaml\n(  relabel_configs:\n.+?)```", DEPLOY.read_text(), re.DOTALL)
    job = f"scrape_configs:\n- job_name: pgleak\n  http_sd_configs: [{{url: 'http://localhost:10432/sd'}}]\n{shard}"
    (tmp_path / "prometheus.yml").write_text(job)
    assert "is valid" in promtool("check", "config", tmp_path / "prometheus.yml")


def test_the_rules_for_kubernetes_are_those_of_prometheus() -> None:
    assert prometheus_rule.TARGET.read_text() == prometheus_rule.render()
    (rule,) = (each for each in KUBERNETES if each["kind"] == "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(RULES.read_text())


def test_an_application_and_its_sidecar_share_folder_and_user() -> None:
    pod = PODS["shop"]["spec"]
    shop, sidecar = pod["containers"]
    folder = {each["name"]: each.get("value") for each in shop["env"]}["PGLEAK_DIR"]
    assert SETTINGS["shop-pgleak"]["pool_dir"] == folder
    assert shop["volumeMounts"][0] in sidecar["volumeMounts"]
    # The volume is open to a group, and pgleak refuses such a folder.
    assert Path(folder).parent == Path(shop["volumeMounts"][0]["mountPath"])
    assert pod["securityContext"]["runAsUser"] > 0
    assert not any("runAsUser" in each["securityContext"] for each in (shop, sidecar))


def test_a_worker_makes_the_folder_its_own_in_a_volume_that_is_open_to_a_group(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Kubernetes makes an emptyDir with fsGroup: whatever is made in it gets the group, and the bit that says so."""
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o2777)
    folder = volume / Path(SETTINGS["shop-pgleak"]["pool_dir"]).name
    worker = (
        f"import sqlalchemy; sqlalchemy.create_engine('sqlite:///{tmp_path}/shop.db?plugin=pgleak&pgleak_name=shop')"
        ".connect(); input()"
    )
    environment = {"PATH": os.environ["PATH"], "PGLEAK_DIR": str(folder)}
    command = [sys.executable, "-c", worker]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as process:
        servers.wait_until(lambda: list(folder.glob("*.state")), timeout=60, what="the worker's report")
        assert volume.stat().st_mode & 0o7777 == 0o2777
        assert folder.stat().st_mode & 0o777 == 0o700
        servers.wait_until(
            lambda: cli.main(["check", "--pool-dir", str(folder)]) == 0 and "pools: shop" in capsys.readouterr().out,
            timeout=30,
            what="the sidecar to see it",
        )
        process.communicate(b"\n", timeout=20)


def test_the_settings_for_kubernetes_are_valid_and_name_files_that_are_mounted(tmp_path: Path) -> None:
    text = yaml.safe_dump(SETTINGS["pgleak"])
    (container,) = PODS["pgleak"]["spec"]["containers"]
    mounts = [each["mountPath"] for each in container["volumeMounts"]]
    named = re.findall(r"password_file: ([^\s}]+)", text)
    assert {str(Path(name).parent) for name in named} <= set(mounts)
    for name in named:
        (tmp_path / Path(name).name).write_text("secret")
        text = text.replace(name, str(tmp_path / Path(name).name))
    read = settings.from_dict(yaml.safe_load(text))
    assert [target.name for target in read.targets] == ["orders"]
    assert read.listen.port == container["ports"][0]["containerPort"]


@pytest.mark.parametrize("name", PODS)
def test_a_pod_shows_metrics_and_no_stacks_on_every_address(name: str) -> None:
    pod = PODS[name]["spec"]
    (sidecar,) = (each for each in pod["containers"] if each["name"] == "pgleak")
    assert sidecar["args"] == ["serve", "--config", "/etc/pgleak/pgleak.yml"]
    (volume,) = (each["configMap"]["name"] for each in pod["volumes"] if each["name"] == "settings")
    assert SETTINGS[volume]["listen"] == "0.0.0.0:10432"
    assert SETTINGS[volume]["connections_page"] is False


def test_prometheus_operator_finds_the_pods_and_their_port() -> None:
    monitors = [each["spec"] for each in KUBERNETES if each["kind"] == "PodMonitor"]
    assert len(monitors) == len(PODS)
    for monitor, pod in zip(monitors, reversed(PODS.values()), strict=True):
        assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        ports = {port["name"] for each in pod["spec"]["containers"] for port in each["ports"]}
        assert {each["port"] for each in monitor["podMetricsEndpoints"]} <= ports
