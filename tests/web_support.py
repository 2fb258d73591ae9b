"""What the tests of the web server share: a site without a database, raw clients, and certificates."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import ipaddress
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client.core import GaugeMetricFamily

from pgleak.web import TargetStatus, WebServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from prometheus_client import Metric
    from typing_extensions import Self

    from pgleak.web import Site
    from pgleak.who.history import Overview

PATIENCE = 20.0  # seconds that a test waits for what should be there in milliseconds


@dataclass
class FakeSite:
    """A site with two targets, which notes what it was asked."""

    names: Sequence[str] = ("main", "reporting")
    known: Sequence[TargetStatus] = ()
    rows: int = 1
    sizes: dict[str | None, int] = field(default_factory=dict)  # rows of one target or, by None, of all together
    is_ready: bool = True
    shown: Overview | None = None
    failure: Exception | None = None
    hold: threading.Event | None = None  # families() waits for it
    asked: list[tuple[float, str | None]] = field(default_factory=list)

    def families(self, deadline: float, target: str | None = None) -> Iterator[Metric]:
        self.asked.append((deadline, target))
        if self.hold is not None:
            assert self.hold.wait(PATIENCE)
        if self.failure is not None:
            raise self.failure
        family = GaugeMetricFamily("pgleak_connections", "Client backends.", labels=["server", "application_name"])
        for name in self.names if target is None else [target]:
            for row in range(self.sizes.get(target, self.rows)):
                family.add_metric([name, f"application {row}"], row)
        yield family

    def targets(self) -> Sequence[str]:
        return self.names

    def statuses(self) -> Sequence[TargetStatus]:
        return self.known

    def overview(self) -> Overview | None:
        return self.shown

    def ready(self) -> bool:
        return self.is_ready


@contextlib.contextmanager
def serving(site: Site | None = None, host: str = "127.0.0.1", **options: Any) -> Iterator[WebServer]:
    """A server on a free port, gone with all its threads when the block ends."""
    server = WebServer(site or FakeSite(), host, 0, **options)
    server.start()
    try:
        yield server
    finally:
        server.shutdown()
        until(lambda: not web_threads(server))


def web_threads(server: WebServer) -> list[str]:
    port = server.address[1]
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(f"pgleak-web-{port}")]


def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Waits for a condition that another thread makes true."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.005)


@dataclass(frozen=True)
class Answer:
    """An answer as it came over the wire, the names of its headers in lower case."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def text(self) -> str:
        body = gzip.decompress(self.raw) if self.headers.get("content-encoding") == "gzip" else self.raw
        return body.decode()


class Client:
    """One connection to a server, with nothing done that a test did not ask for."""

    def __init__(
        self,
        server: WebServer,
        context: ssl.SSLContext | None = None,
        *,
        source: str | None = None,
        buffer: int | None = None,
    ) -> None:
        family = socket.AF_INET6 if ":" in server.address[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self._buffer = b""
        try:
            self.sock.settimeout(PATIENCE)
            if buffer is not None:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            if source is not None:
                self.sock.bind((source, 0))
            self.sock.connect(server.address)
            if context is not None:
                self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost:10432"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        return self.answer(body=method != "HEAD")

    def answer(self, *, body: bool = True) -> Answer:
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        headers = {name.lower(): value for name, _, value in pairs}
        length = int(headers["content-length"]) if body else 0
        while len(self._buffer) < length:
            self._more()
        raw, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(int(first.split(" ")[1]), headers, raw)

    def at_end(self) -> bool:
        """Whether the server has closed the connection, and said nothing more before; waits for it."""
        try:
            return not self._buffer and not self.sock.recv(1)
        except (ConnectionError, ssl.SSLError):
            return True

    def _more(self) -> None:
        chunk = self.sock.recv(65536)
        assert chunk, f"the server closed the connection after {self._buffer!r}"
        self._buffer += chunk


def get(server: WebServer, path: str, context: ssl.SSLContext | None = None, **headers: str) -> Answer:
    with Client(server, context) as client:
        return client.get(path, **headers)


def raw(server: WebServer, data: bytes) -> Answer:
    """The answer to these very bytes."""
    with Client(server) as client:
        client.send(data)
        return client.answer()


# Certificates

_NOW = dt.datetime.now(dt.timezone.utc)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, also as files."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    cert_file: Path
    key_file: Path

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.key_file.read_text()


def make_identity(
    folder: Path, name: str, issuer: Identity | None = None, *, ca: bool = False, sans: Sequence[x509.GeneralName] = ()
) -> Identity:
    """A certificate, signed by its issuer or by itself, in ``NAME.crt`` and ``NAME.key``."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW - dt.timedelta(days=1))
        .not_valid_after(_NOW + dt.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    certificate = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    identity = Identity(certificate, key, folder / f"{name}.crt", folder / f"{name}.key")
    identity.cert_file.write_text(identity.pem)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    identity.key_file.write_bytes(pem)
    return identity


def make_server_identity(folder: Path, name: str = "server", issuer: Identity | None = None) -> Identity:
    sans = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return make_identity(folder, name, issuer, sans=sans)


def trusting(server: Identity, client: Identity | None = None) -> ssl.SSLContext:
    """What a client needs that trusts this server certificate, and shows its own where it has one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=server.pem)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if client is not None:
        context.load_cert_chain(client.cert_file, client.key_file)
    return context
