"""TLS and client certificates, over real connections."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import shutil
import ssl
import subprocess
import urllib.request
from typing import TYPE_CHECKING

import bcrypt
import pytest
from cryptography import x509

from pgleak.web.tls import ServerTls
from web_support import Client, get, make_identity, make_server_identity, raw, serving, trusting

if TYPE_CHECKING:
    from pathlib import Path

    from pgleak.web import WebServer
    from web_support import Identity

IDENTITY = "cert_file: server.crt\n  key_file: server.key"


class Certificates:
    """A server, an authority with two clients, and a client whose authority nobody knows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = make_server_identity(folder)
        self.authority = make_identity(folder, "ca", ca=True)
        self.prometheus = make_identity(
            folder,
            "prometheus",
            self.authority,
            sans=[
                x509.DNSName("prometheus.example"),
                x509.RFC822Name("ops@example.org"),
                x509.UniformResourceIdentifier("spiffe://example.org/prometheus"),
                x509.IPAddress(ipaddress.ip_address("2001:db8::7")),
                x509.IPAddress(ipaddress.ip_address("192.0.2.7")),
            ],
        )
        self.nameless = make_identity(folder, "nameless", self.authority)
        self.stranger = make_identity(folder, "stranger", make_identity(folder, "other-ca", ca=True))

    def config(self, tls: str, rest: str = "") -> Path:
        file = self.folder / "web.yml"
        file.write_text(f"tls_server_config:\n  {IDENTITY}\n  {tls}\n{rest}", encoding="utf-8")
        return file


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


def admitted(server: WebServer, certificates: Certificates, client: Identity | None) -> bool:
    """Whether a scrape with this client certificate is answered."""
    try:
        return get(server, "/metrics", trusting(certificates.server, client)).status == 200
    except (ssl.SSLError, ConnectionError, AssertionError):
        return False


def test_metrics_come_over_tls(certificates: Certificates) -> None:
    with serving(web_config_file=certificates.config("")) as server:
        context = trusting(certificates.server)
        assert server.url.startswith("https://127.0.0.1:")
        with urllib.request.urlopen(f"{server.url}/metrics", context=context, timeout=10) as answer:
            assert answer.status == 200
        with Client(server, context) as client:
            assert isinstance(client.sock, ssl.SSLSocket)
            assert client.sock.version() == "TLSv1.3"
            for _ in range(3):
                assert client.get("/metrics").status == 200
            assert client.get("/metrics", Connection="close").status == 200
            assert client.sock.recv(1) == b"", "the end is said in TLS, not by cutting the line"
        assert '"__scheme__": "https"' in get(server, "/sd", context).text


def test_http_2_is_never_agreed_upon(certificates: Certificates) -> None:
    with serving(web_config_file=certificates.config("", "http_server_config: {http2: true}\n")) as server:
        context = trusting(certificates.server)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with Client(server, context) as client:
            assert isinstance(client.sock, ssl.SSLSocket)
            assert client.sock.selected_alpn_protocol() == "http/1.1"
            assert client.get("/metrics").status == 200


def test_plain_http_on_the_tls_port_is_told_so(certificates: Certificates) -> None:
    with serving(web_config_file=certificates.config("")) as server:
        answer = raw(server, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.status == 400
    assert answer.text == "This address speaks HTTPS: use https://.\n"


def test_garbage_on_the_tls_port_ends_the_connection(certificates: Certificates) -> None:
    with serving(web_config_file=certificates.config("")) as server, Client(server) as client:
        client.send(b"\x16\x03\x01\xff\xff" + b"garbage" * 100)
        with contextlib.suppress(ConnectionError):
            while client.sock.recv(100):
                pass
        assert get(server, "/-/healthy", trusting(certificates.server)).status == 200


@pytest.mark.parametrize(
    ("tls", "who"),
    [
        ("", {"none", "prometheus", "nameless", "stranger"}),
        ("client_auth_type: NoClientCert", {"none", "prometheus", "nameless", "stranger"}),
        ("client_auth_type: RequestClientCert", {"none", "prometheus", "nameless", "stranger"}),
        (
            "client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt",
            {"none", "prometheus", "nameless"},
        ),
        (
            "client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt",
            {"prometheus", "nameless"},
        ),
        # A client's own certificate, or one of several, may stand in the file.
        ("client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: stranger.crt", {"stranger"}),
        ("client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: nameless.crt", {"nameless"}),
        # Nobody here has a certificate from a public authority.
        ("client_auth_type: RequireAndVerifyClientCert", set()),
        *(
            (
                (
                    "client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
                    f"  client_allowed_sans: [other.example, '{name}']"
                ),
                {"prometheus"},
            )
            for name in (
                "prometheus.example",
                "ops@example.org",
                "spiffe://example.org/prometheus",
                "2001:db8:0::7",
                "192.0.2.7",
            )
        ),
        (
            (
                "client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
                "  client_allowed_sans: [example, prometheus, '*.example', nameless]"
            ),
            set(),
        ),
        (
            (
                "client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n"
                "  client_allowed_sans: [prometheus.example]"
            ),
            {"prometheus"},
        ),
    ],
)
def test_client_certificates_decide_who_is_let_in(certificates: Certificates, tls: str, who: set[str]) -> None:
    clients = {
        "none": None,
        "prometheus": certificates.prometheus,
        "nameless": certificates.nameless,
        "stranger": certificates.stranger,
    }
    with serving(web_config_file=certificates.config(tls)) as server:
        assert {name for name, client in clients.items() if admitted(server, certificates, client)} == who


@pytest.mark.parametrize(
    ("host", "tls", "passwords", "everybody"),
    [
        ("0.0.0.0", "", (), True),
        ("", "client_auth_type: VerifyClientCertIfGiven", (), True),
        ("0.0.0.0", "client_auth_type: RequireAndVerifyClientCert", (), False),
        ("0.0.0.0", "", ("secret",), False),
        ("127.0.0.1", "", (), False),
    ],
)
def test_it_is_known_when_everybody_on_the_network_is_let_in(
    certificates: Certificates, host: str, tls: str, passwords: tuple[str, ...], everybody: bool
) -> None:
    """A web config file alone keeps nobody out."""
    hashes = [bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode() for password in passwords]
    users = "".join(f"basic_auth_users: {{alice: {each}}}\n" for each in hashes)
    with serving(host=host, web_config_file=certificates.config(tls, users)) as server:
        assert server.lets_everybody_in == everybody


def test_a_client_certificate_is_shown_anew_on_each_connection(certificates: Certificates) -> None:
    """A resumed session would carry an old proof into a policy that does not accept it any more."""
    config = certificates.config("client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt")
    with serving(web_config_file=config) as server:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(certificates.server, certificates.prometheus)
            context.maximum_version = version
            with Client(server, context) as client:
                assert client.get("/metrics").status == 200
                assert isinstance(client.sock, ssl.SSLSocket)
                session = client.sock.session
                with contextlib.suppress(OSError):
                    client.sock.unwrap()  # OpenSSL forgets a session that was not ended properly
            if session is None:
                continue
            with contextlib.closing(_resume(server, context, session)) as sock:
                assert not sock.session_reused


def _resume(server: WebServer, context: ssl.SSLContext, session: ssl.SSLSession) -> ssl.SSLSocket:
    import socket

    sock = socket.create_connection(server.address, timeout=10)
    return context.wrap_socket(sock, server_hostname="localhost", session=session)


def negotiated(server: WebServer, context: ssl.SSLContext) -> tuple[str, str] | None:
    """Version and cipher of a connection, or None when there is no common ground."""
    try:
        with Client(server, context) as client:
            assert isinstance(client.sock, ssl.SSLSocket)
            cipher = client.sock.cipher()
            assert cipher is not None
            assert client.get("/-/healthy").status == 200
            return client.sock.version() or "", cipher[0]
    except (ssl.SSLError, ConnectionError):
        return None


def test_versions_are_limited_as_configured(certificates: Certificates) -> None:
    old, new = trusting(certificates.server), trusting(certificates.server)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    new.minimum_version = ssl.TLSVersion.TLSv1_3
    for tls, with_old, with_new in (
        ("min_version: TLS13", None, "TLSv1.3"),
        ("max_version: TLS12", "TLSv1.2", None),
        ("min_version: TLS10", "TLSv1.2", "TLSv1.3"),
        ("cipher_suites: [TLS_AES_128_GCM_SHA256]", None, "TLSv1.3"),
    ):
        with serving(web_config_file=certificates.config(tls)) as server:
            assert (negotiated(server, old) or (None,))[0] == with_old, tls
            assert (negotiated(server, new) or (None,))[0] == with_new, tls


def test_ciphers_are_limited_and_ordered_as_configured(certificates: Certificates) -> None:
    client = trusting(certificates.server)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305")
    suites = "cipher_suites: [TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]"
    for tls, cipher in (
        (suites, "ECDHE-ECDSA-CHACHA20-POLY1305"),
        (f"{suites}\n  prefer_server_cipher_suites: false", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ):
        with serving(web_config_file=certificates.config(tls)) as server:
            assert negotiated(server, client) == ("TLSv1.2", cipher)
    with serving(web_config_file=certificates.config("cipher_suites: [TLS_RSA_WITH_AES_128_GCM_SHA256]")) as server:
        assert negotiated(server, client) is None


def test_curves_are_limited_as_configured(certificates: Certificates) -> None:
    client = trusting(certificates.server)
    client.set_ecdh_curve("secp384r1")
    with serving(web_config_file=certificates.config("curve_preferences: [CurveP384]")) as server:
        assert negotiated(server, client) is not None
    with serving(web_config_file=certificates.config("curve_preferences: [CurveP521]")) as server:
        assert negotiated(server, client) is None
    anything = trusting(certificates.server)
    with serving(web_config_file=certificates.config("curve_preferences: [X25519, CurveP256]")) as server:
        assert negotiated(server, client) is None
        assert negotiated(server, anything) is not None


def test_a_key_that_stands_in_the_config_is_written_to_no_disk(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it also works where the file system is read-only, as in a container."""
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    lines = {
        "cert": certificates.server.pem.replace("\n", "\n    "),
        "key": certificates.server.key_pem.replace("\n", "\n    "),
    }
    file = certificates.folder / "inline.yml"
    file.write_text(f"tls_server_config:\n  cert: |\n    {lines['cert']}\n  key: |\n    {lines['key']}\n")
    with serving(web_config_file=file) as server:
        assert get(server, "/metrics", trusting(certificates.server)).status == 200


def test_a_policy_that_asks_for_no_name_is_weaker_than_one_that_does() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    strict, open_ = ServerTls(context, frozenset({"a"})), ServerTls(context)
    assert open_.weaker_than(strict)
    assert not strict.weaker_than(open_)


def test_prometheus_gets_in_with_its_certificate_and_password(certificates: Certificates) -> None:
    """promtool asks /sd with the HTTP client of Prometheus, which is Go's."""
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing; install it with: apt-get install prometheus"
    hash_ = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    config = certificates.config(
        "client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt",
        f"basic_auth_users:\n  prometheus: {hash_}\n",
    )
    with serving(web_config_file=config) as server:
        prometheus_yml = certificates.folder / "prometheus.yml"
        prometheus_yml.write_text(
            f"""
scrape_configs:
- job_name: pgleak
  http_sd_configs:
  - url: {server.url}/sd
    basic_auth: {{username: prometheus, password: secret}}
    tls_config:
      ca_file: {certificates.server.cert_file}
      cert_file: {certificates.prometheus.cert_file}
      key_file: {certificates.prometheus.key_file}
""",
            encoding="utf-8",
        )
        command = [promtool, "check", "service-discovery", "--timeout=3s", str(prometheus_yml), "pgleak"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [target["labels"]["__scheme__"] for target in json.loads(done.stdout)] == ["https", "https"]
