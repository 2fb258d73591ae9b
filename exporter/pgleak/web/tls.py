"""TLS as the web config wants it, out of Python's ssl module."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgleak import smallfile
from pgleak.problem import Problem
from pgleak.web.ciphers import CURVES

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

    from pgleak.web.config import Material, TlsConfig

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY = {
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What it takes to speak TLS with a client, and to tell whether its certificate has an allowed name."""

    context: ssl.SSLContext
    allowed_sans: frozenset[str] | None = None

    def wrap(self, sock: socket.socket) -> ssl.SSLSocket:
        """Puts TLS around a connection. Does not wait: the handshake is still to be made."""
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    @property
    def asks(self) -> bool:
        """Whether only clients with a certificate are let in."""
        return self.context.verify_mode is ssl.CERT_REQUIRED

    def weaker_than(self, other: ServerTls) -> bool:
        """Whether it lets in clients without the certificate that the other one wants."""
        if self.context.verify_mode < other.context.verify_mode:
            return True
        return self.allowed_sans is None and other.allowed_sans is not None

    def welcomes(self, sock: ssl.SSLSocket) -> bool:
        """Whether the client's certificate has one of the allowed names, where only some are allowed."""
        return self.allowed_sans is None or not self.allowed_sans.isdisjoint(_names(sock.getpeercert() or {}))


def build(config: TlsConfig) -> tuple[ServerTls | None, list[Problem], list[str]]:
    """Reads the certificates; gives what is ready to use, or what is wrong, and what the author should know."""
    problems: list[Problem] = []
    notes: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS["TLS13" if config.only_tls13 else config.min_version]
    context.maximum_version = _VERSIONS[config.max_version]
    context.set_alpn_protocols(["http/1.1"])
    # No session is resumed: each connection shows its certificate, and is judged by it, anew.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    if config.server_order:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if config.ciphers:
        _set_ciphers(context, config, problems)
    if config.curves:
        notes += _set_curves(context, config.curves, problems)
    _load_identity(context, config, problems)
    if config.client_auth in _VERIFY:
        _load_client_ca(context, config, problems)
        context.verify_mode = _VERIFY[config.client_auth]
    if problems:
        return None, problems, notes
    sans = None if config.allowed_sans is None else frozenset(map(_canonical, config.allowed_sans))
    return ServerTls(context, sans), problems, notes


def _set_ciphers(context: ssl.SSLContext, config: TlsConfig, problems: list[Problem]) -> None:
    try:
        context.set_ciphers(":".join(config.ciphers))
    except ssl.SSLError:
        problems.append(Problem("tls_server_config.cipher_suites", "this machine's OpenSSL offers none of these"))


def _set_curves(context: ssl.SSLContext, curves: tuple[str, ...], problems: list[Problem]) -> list[str]:
    path = "tls_server_config.curve_preferences"
    set_groups = getattr(context, "set_groups", None)  # since Python 3.15
    if set_groups is not None:
        set_groups(":".join(CURVES[curve] for curve in curves))
        return []
    for curve in curves:
        try:
            context.set_ecdh_curve(CURVES[curve])
        except (ssl.SSLError, ValueError):  # X25519 in some builds
            continue
        if len(curves) == 1:
            return []
        return [f"{path}: of these, only {curve} is offered, as this version of Python can offer only one"]
    problems.append(Problem(path, "this version of Python cannot offer it; add CurveP256, or remove the key"))
    return []


def _load_identity(context: ssl.SSLContext, config: TlsConfig, problems: list[Problem]) -> None:
    cert = _read(config.cert, "CERTIFICATE", "a certificate in PEM form", problems)
    key = _read(config.key, "PRIVATE KEY", "a private key in PEM form", problems)
    if not cert or not key or config.cert is None or config.key is None:
        return
    path = config.cert.path
    try:
        with _as_file(cert) as cert_file, _as_file(key) as key_file:
            context.load_cert_chain(cert_file, key_file, password=_refuse_password)
    except _EncryptedKeyError:
        problems.append(Problem(config.key.path, "the private key is encrypted; store it without a passphrase"))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            message = f"the certificate does not belong to the private key of {config.key.path}"
        else:
            message = f"OpenSSL refuses this certificate or its key: {error.reason or 'damaged PEM data'}"
        problems.append(Problem(path, message))
    except OSError as error:
        problems.append(Problem(path, f"cannot be handed to OpenSSL: {error.strerror}"))


def _load_client_ca(context: ssl.SSLContext, config: TlsConfig, problems: list[Problem]) -> None:
    # A certificate of the file is trusted as it stands, also an intermediate one or a client's own, as in Go.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if config.client_ca is None:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        return
    pem = _read(config.client_ca, "CERTIFICATE", "a certificate in PEM form", problems)
    if not pem:
        return
    try:
        context.load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "damaged PEM data"
        problems.append(Problem(config.client_ca.path, f"OpenSSL refuses these certificates: {reason}"))


def _read(material: Material | None, mark: str, what: str, problems: list[Problem]) -> str:
    """The PEM text, or nothing and a problem. Never quotes what it read: it may be a key."""
    if material is None:
        return ""
    text = material.text
    named = ""
    if material.file is not None:
        named = f"{material.file}: "
        try:
            text = smallfile.content(material.file).decode("latin-1")
        except OSError as error:
            problems.append(Problem(material.path, f"{named}{error.strerror or 'cannot be read'}"))
            return ""
        except ValueError:  # a null character in the path
            problems.append(Problem(material.path, "is not a path"))
            return ""
    if not any(line.startswith("-----BEGIN ") and line.endswith(f"{mark}-----") for line in _lines(text)):
        problems.append(Problem(material.path, f"{named}must hold {what}"))
        return ""
    if not text.isascii():
        text = text.encode("ascii", "replace").decode()  # comments around the PEM blocks, which OpenSSL skips
    return text


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


class _EncryptedKeyError(Exception):
    """OpenSSL asked for a passphrase, which without this it would do on the terminal."""


def _refuse_password() -> str:
    raise _EncryptedKeyError


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[str]:
    """A path to the text, which the ssl module wants; in memory where the system can do that, as it may be a key."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        with os.fdopen(os.memfd_create("pem", os.MFD_CLOEXEC), "wb", buffering=0) as memory:
            memory.write(text.encode())
            yield f"/proc/self/fd/{memory.fileno()}"
    else:
        with tempfile.NamedTemporaryFile("wb") as file:  # readable by its owner only
            file.write(text.encode())
            file.flush()
            yield file.name


def _names(certificate: Mapping[str, object]) -> Iterator[str]:
    """The alternative names of a certificate of the kinds that the format compares."""
    entries = certificate.get("subjectAltName")
    for kind, value in entries if isinstance(entries, tuple) else ():
        if kind in {"DNS", "email", "URI"}:
            yield value
        elif kind == "IP Address":
            yield _canonical(value)


def _canonical(name: str) -> str:
    """IP addresses in one spelling, so that they can be compared; anything else as it is."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name
