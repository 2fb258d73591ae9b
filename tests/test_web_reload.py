"""The web config is read again when it changes, and a wrong one changes nothing."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING

import bcrypt
import pytest

from pgleak.web import WebConfigError
from pgleak.web.reload import LivePolicy
from test_web_auth import basic
from web_support import Client, get, make_identity, make_server_identity, serving, trusting

if TYPE_CHECKING:
    from pathlib import Path

TLS = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n"


def users(**passwords: str) -> str:
    hashes = {name: bcrypt.hashpw(text.encode(), bcrypt.gensalt(4)).decode() for name, text in passwords.items()}
    return "basic_auth_users:\n" + "".join(f"  {name}: {hash_}\n" for name, hash_ in hashes.items())


def replace(file: Path, text: str) -> None:
    """As an editor or a config management tool does it: a new file in the place of the old."""
    new = file.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "web.yml"


def test_a_changed_password_counts_from_the_next_request(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    replace(file, users(alice="old"))
    with serving(web_config_file=file) as server, Client(server) as client, caplog.at_level(logging.INFO):
        assert client.get("/metrics", Authorization=basic("alice", "old")).status == 200
        replace(file, users(alice="new", bob="his"))
        assert client.get("/metrics", Authorization=basic("alice", "old")).status == 401
        # The connection was made under the former config, so it ends with its next answer.
        assert get(server, "/metrics", Authorization=basic("alice", "new")).status == 200
        assert get(server, "/metrics", Authorization=basic("bob", "his")).status == 200
    assert [record.getMessage() for record in caplog.records] == [f"{file}: the changed web config is in force"]


def test_a_file_written_in_place_is_noticed_too(file: Path) -> None:
    file.write_text(users(alice="one"))
    with serving(web_config_file=file) as server:
        size = file.stat().st_size
        file.write_text(users(alice="two"))
        assert file.stat().st_size == size
        assert get(server, "/metrics", Authorization=basic("alice", "two")).status == 200


def test_a_wrong_version_leaves_the_last_good_one_in_force(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once in the log, not with each request, and stays visible until it is mended."""
    replace(file, users(alice="right"))
    with serving(web_config_file=file) as server, caplog.at_level(logging.WARNING):
        assert server.config_problem == ""
        replace(file, "basic_auth_users:\n  alice: MARKED-SECRET\n")
        for _ in range(3):
            assert get(server, "/metrics", Authorization=basic("alice", "right")).status == 200
            assert get(server, "/metrics", Authorization=basic("alice", "MARKED-SECRET")).status == 401
        assert "basic_auth_users.alice (line 2): must be a bcrypt hash" in server.config_problem
        assert len(caplog.records) == 1
        assert "The last good version stays in force." in caplog.records[0].getMessage()
        replace(file, "basic_auth_users: {alice: MARKED-SECRET")
        assert get(server, "/metrics", Authorization=basic("alice", "right")).status == 200
        assert "web.yml:1:" in server.config_problem
        file.unlink()
        assert get(server, "/metrics", Authorization=basic("alice", "right")).status == 200
        assert "No such file or directory" in server.config_problem
        assert len(caplog.records) == 3
        replace(file, users(alice="newer"))
        assert get(server, "/metrics", Authorization=basic("alice", "newer")).status == 200
        assert server.config_problem == ""
    assert "MARKED-SECRET" not in caplog.text


@pytest.mark.parametrize("text", ["", "# all gone\n", "http_server_config: {http2: false}\n"])
def test_a_version_that_asks_for_no_password_any_more_is_not_taken_while_running(file: Path, text: str) -> None:
    """A file that was cut short looks like that. A restart takes it as it is."""
    replace(file, users(alice="right"))
    with serving(web_config_file=file) as server:
        replace(file, text)
        assert get(server, "/metrics").status == 401
        assert get(server, "/metrics", Authorization=basic("alice", "right")).status == 200
        assert server.config_problem == (
            f"{file}: the changed web config asks for no passwords any more; restart pgleak to have that"
        )
    with serving(web_config_file=file) as server:
        assert get(server, "/metrics").status == 200


def test_nor_is_one_without_tls_or_client_certificates(file: Path) -> None:
    server_identity = make_server_identity(file.parent)
    client = make_identity(file.parent, "client")
    strict = (
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  client_ca_file: client.crt\n"
        "  client_auth_type: RequireAndVerifyClientCert\n"
    )
    replace(file, strict)
    with serving(web_config_file=file) as server:
        context = trusting(server_identity, client)
        for text, asked in (("", "TLS"), (TLS, "client certificates")):
            replace(file, text)
            assert get(server, "/metrics", context).status == 200
            assert f"asks for no {asked} any more" in server.config_problem
            with pytest.raises((OSError, AssertionError)):
                get(server, "/metrics", trusting(server_identity))
        replace(file, strict)
        assert get(server, "/metrics", context).status == 200
        assert server.config_problem == ""


def test_a_renewed_certificate_is_shown_to_the_next_connection(file: Path) -> None:
    old = make_server_identity(file.parent)
    replace(file, TLS)
    with serving(web_config_file=file) as server, Client(server, trusting(old)) as kept:
        assert kept.get("/metrics").status == 200
        new = make_server_identity(file.parent)  # the same file names
        with Client(server, trusting(new)) as client:
            assert client.get("/metrics").status == 200
        answer = kept.get("/metrics")
        assert (answer.status, answer.headers["connection"]) == (200, "close"), "it ends, to come back with the new one"


def test_a_renewal_is_complete_when_its_second_file_is(file: Path) -> None:
    """Between the two, certificate and key do not belong together, and the former pair serves on."""
    old = make_server_identity(file.parent)
    replace(file, TLS)
    with serving(web_config_file=file) as server:
        (file.parent / "next").mkdir()
        new = make_server_identity(file.parent / "next")
        replace(file.parent / "server.crt", new.pem)
        assert get(server, "/metrics", trusting(old)).status == 200
        assert "does not belong to the private key" in server.config_problem
        replace(file.parent / "server.key", new.key_pem)
        assert get(server, "/metrics", trusting(new)).status == 200
        assert server.config_problem == ""


def test_a_changed_client_authority_counts_for_new_connections(file: Path) -> None:
    server_identity = make_server_identity(file.parent)
    (file.parent / "later").mkdir()
    first, second = make_identity(file.parent, "client"), make_identity(file.parent / "later", "client")
    replace(
        file,
        "tls_server_config: {cert_file: server.crt, key_file: server.key, client_ca_file: client.crt, "
        "client_auth_type: RequireAndVerifyClientCert}\n",
    )
    contexts = [trusting(server_identity, first), trusting(server_identity, second)]
    with serving(web_config_file=file) as server:
        assert get(server, "/metrics", contexts[0]).status == 200
        replace(file.parent / "client.crt", second.pem)
        assert get(server, "/metrics", contexts[1]).status == 200
        with pytest.raises((OSError, AssertionError)):
            get(server, "/metrics", contexts[0])


def test_tls_can_be_turned_on_while_running(file: Path) -> None:
    identity = make_server_identity(file.parent)
    replace(file, "")
    with serving(web_config_file=file) as server:
        assert get(server, "/metrics").status == 200
        replace(file, TLS)
        assert get(server, "/metrics", trusting(identity)).status == 200
        assert server.url.startswith("https://")


def test_a_volume_of_kubernetes_is_followed(tmp_path: Path) -> None:
    """There a symbolic link to the folder of the current version is replaced, and no file is."""
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "web.yml").write_text(users(alice=version))
    (tmp_path / "data").symlink_to("one")
    with serving(web_config_file=tmp_path / "data" / "web.yml") as server:
        assert get(server, "/metrics", Authorization=basic("alice", "one")).status == 200
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").rename(tmp_path / "data")
        assert get(server, "/metrics", Authorization=basic("alice", "two")).status == 200


def test_a_file_that_becomes_unreadable_is_a_problem_that_goes_by(file: Path) -> None:
    replace(file, users(alice="right"))
    live = LivePolicy(file)
    good = live.current()
    file.unlink()
    file.mkdir()
    assert live.current() is good
    assert "Is a directory" in live.problem
    file.rmdir()
    replace(file, users(alice="right"))
    assert live.current() is not good
    assert live.problem == ""


def test_without_a_change_nothing_is_read_again(file: Path) -> None:
    make_server_identity(file.parent)
    replace(file, TLS)
    live = LivePolicy(file)
    assert live.current() is live.current()
    os.utime(file)
    first = live.current()
    assert first is live.current()


def test_many_threads_see_one_version_or_the_other(file: Path) -> None:
    replace(file, users(alice="one"))
    live = LivePolicy(file)
    stop = threading.Event()
    wrong: list[str] = []

    def look() -> None:
        while not stop.is_set():
            if live.current().auth is None or live.problem:
                wrong.append(live.problem)

    threads = [threading.Thread(target=look) for _ in range(3)]
    with contextlib.ExitStack() as stack:
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        for number in range(20):
            replace(file, users(alice=str(number)))
    assert wrong == []
    auth = live.current().auth
    assert auth is not None
    assert auth.allows(basic("alice", "19"), "")


def test_a_wrong_file_is_an_error_at_the_start(file: Path) -> None:
    file.write_text("basic_auth_users: {alice: plain}\n")
    with pytest.raises(WebConfigError, match="alice"), serving(web_config_file=file):
        pass
