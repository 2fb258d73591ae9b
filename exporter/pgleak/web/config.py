"""The web config file, in the format that the exporters of the Prometheus project share.

The format: https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgleak.problem import Problem
from pgleak.web.ciphers import CIPHERS, CURVES
from pgleak.web.yamlread import Section, compose, shown
from pgleak.yamlfile import YamlError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_TOP = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
_TLS = (
    "cert", "key", "client_ca", "cert_file", "key_file", "client_ca_file", "client_auth_type",
    "client_allowed_sans", "min_version", "max_version", "cipher_suites", "prefer_server_cipher_suites",
    "curve_preferences",
)  # fmt: skip
_TURNS_TLS_ON = ("cert", "key", "client_ca", "cert_file", "key_file", "client_ca_file", "client_auth_type")
_VERSIONS = ("TLS10", "TLS11", "TLS12", "TLS13")
_HEADERS: dict[str, tuple[str, ...]] = {  # and the values that the format allows, where it limits them
    "Content-Security-Policy": (),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-Content-Type-Options": ("nosniff",),
    "X-XSS-Protection": (),
    "Strict-Transport-Security": (),
}
_NO_CERT = "NoClientCert"
_CLIENT_AUTH = (
    _NO_CERT, "RequestClientCert", "RequireAnyClientCert", "RequireClientCert", "VerifyClientCertIfGiven",
    "RequireAndVerifyClientCert",
)  # fmt: skip
_BCRYPT = re.compile(r"\$2[aby]\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}", re.ASCII)
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class WebConfigError(Exception):
    """A web config file that cannot be used; its text is the whole report, a problem a line, without secrets."""

    def __init__(self, file: Path, problems: Sequence[Problem], files: Sequence[Path] = ()) -> None:
        self.file = file
        self.files = tuple(files)  # others that it names, whose change may cure it
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or math.inf))
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        super().__init__(f"{file}: this web config file cannot be used:{lines}")


@dataclass(frozen=True, slots=True)
class Material:
    """A certificate or key, by file or as text in the settings themselves."""

    path: str  # where it stands in the settings
    file: Path | None
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """``tls_server_config``, in the words of the file except for the ciphers, which are OpenSSL's."""

    cert: Material | None  # missing only beside a problem that says so, like the key
    key: Material | None
    client_ca: Material | None
    client_auth: str
    allowed_sans: tuple[str, ...] | None
    min_version: str
    max_version: str
    ciphers: tuple[str, ...]  # for TLS 1.2; empty for the default
    only_tls13: bool  # ciphers were listed, and all of them are of TLS 1.3
    server_order: bool
    curves: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The whole file. ``notes`` are what its author should know although it is not wrong."""

    tls: TlsConfig | None = None
    headers: tuple[tuple[str, str], ...] = ()
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    rate_limit: tuple[float, int] | None = None  # seconds between requests, burst
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it names."""
        if self.tls is None:
            return ()
        materials = (self.tls.cert, self.tls.key, self.tls.client_ca)
        return tuple(material.file for material in materials if material and material.file)


def parse(text: str, file: Path) -> tuple[WebConfig, list[Problem]]:
    """Read the file's text; paths in it are relative to ``file``. Without problems, the config is usable."""
    problems: list[Problem] = []
    notes: list[str] = []
    try:
        top = Section(compose(text, file.name), "", problems, _TOP)
    except YamlError as error:
        return WebConfig(), [Problem("", str(error))]
    http = top.section("http_server_config", ("http2", "headers"))
    http.boolean("http2", default=True)  # HTTP/2 is negotiated, and never offered here: either value changes nothing
    config = WebConfig(
        tls=_tls(top.section("tls_server_config", _TLS), file.parent, notes),
        headers=_headers(http.section("headers", _HEADERS)),
        users=_users(top.section("basic_auth_users")),
        rate_limit=_rate_limit(top.section("rate_limit", ("interval", "burst"))),
        notes=tuple(notes),
    )
    return config, problems


def _tls(section: Section, folder: Path, notes: list[str]) -> TlsConfig | None:
    on = any(section.text(name) for name in _TURNS_TLS_ON)
    if not on and any(name in section for name in _TLS):
        notes.append("tls_server_config names no certificate: TLS stays off")
    client_auth = section.one_of("client_auth_type", _CLIENT_AUTH, _NO_CERT)
    client_ca = _material(section, "client_ca", folder, notes)
    sans = section.texts("client_allowed_sans")
    ciphers, only_tls13 = _ciphers(section)
    oldest, newest = _versions(section, notes)
    config = TlsConfig(
        cert=_material(section, "cert", folder, notes),
        key=_material(section, "key", folder, notes),
        client_ca=client_ca,
        client_auth=client_auth,
        allowed_sans=sans,
        min_version=oldest,
        max_version=newest,
        ciphers=ciphers,
        only_tls13=only_tls13,
        server_order=section.boolean("prefer_server_cipher_suites", default=True),
        curves=_known(section, "curve_preferences", CURVES),
    )
    if not on:
        return None
    for name, material in (("cert", config.cert), ("key", config.key)):
        if material is None:
            section.note(f"{name}_file", f"is missing: TLS needs a certificate and a key, so set {name}_file or {name}")
    if only_tls13 and newest == "TLS12":
        section.note("cipher_suites", "has no cipher for TLS 1.2, the newest version that max_version allows")
    _check_client_auth(section, config, notes)
    return config


def _check_client_auth(section: Section, config: TlsConfig, notes: list[str]) -> None:
    where = section.at("client_auth_type")
    if config.client_auth in {"RequireAnyClientCert", "RequireClientCert"}:
        section.note(
            "client_auth_type",
            f"{shown(config.client_auth)} is not supported, as it takes a certificate that anybody can make; use "
            "RequireAndVerifyClientCert with client_ca_file, which may hold the clients' own certificates",
        )
    if config.client_auth == _NO_CERT and config.client_ca:
        section.note(
            config.client_ca.path.rpartition(".")[2],
            "is of no use without a client_auth_type; use RequireAndVerifyClientCert, or remove it",
        )
    if config.allowed_sans is not None and config.client_auth in {_NO_CERT, "RequestClientCert"}:
        section.note(
            "client_allowed_sans",
            f"is of no use while client_auth_type is {config.client_auth}; use RequireAndVerifyClientCert, "
            "or remove it",
        )
    if config.client_auth == "RequestClientCert":
        notes.append(f"{where}: RequestClientCert asks for a certificate and ignores it; none is asked for")
    if config.client_auth == "VerifyClientCertIfGiven":
        notes.append(f"{where}: VerifyClientCertIfGiven lets clients without a certificate in")
    if config.client_auth in {"VerifyClientCertIfGiven", "RequireAndVerifyClientCert"} and not config.client_ca:
        notes.append(f"{where}: without client_ca_file, every certificate from a public authority is trusted")


def _material(section: Section, name: str, folder: Path, notes: list[str]) -> Material | None:
    """Find ``NAME_file`` or ``NAME``. The file wins where both are set, as in the other exporters."""
    file, text = section.text(f"{name}_file"), section.text(name)
    if file and text:
        notes.append(f"{section.at(name)} is ignored, because {section.at(f'{name}_file')} is set too")
    if file:
        return Material(section.at(f"{name}_file"), folder / file)
    return Material(section.at(name), None, text) if text else None


def _versions(section: Section, notes: list[str]) -> tuple[str, str]:
    oldest = section.one_of("min_version", _VERSIONS, "TLS12")
    newest = section.one_of("max_version", _VERSIONS, "TLS13")
    if newest < "TLS12":
        section.note(
            "max_version",
            f"{newest!r} is not supported: TLS 1.2 is the oldest spoken here; use TLS12 or TLS13",
        )
    elif oldest > newest:
        section.note("min_version", f"{oldest!r} is newer than max_version, {newest!r}")
    if oldest < "TLS12":
        notes.append(f"{section.at('min_version')}: {oldest} is read as TLS12, the oldest version spoken here")
    return max(oldest, "TLS12"), max(newest, "TLS12")


def _ciphers(section: Section) -> tuple[tuple[str, ...], bool]:
    """Give the ciphers for TLS 1.2, and whether only ones of TLS 1.3 were listed, among which there is no choice."""
    names = _known(section, "cipher_suites", CIPHERS)
    older = tuple(CIPHERS[name] for name in names if CIPHERS[name])
    return older, bool(names) and not older


def _known(section: Section, name: str, words: Mapping[str, str]) -> tuple[str, ...]:
    given = section.texts(name) or ()
    unknown = [shown(word) for word in given if word not in words]
    if unknown:
        section.note(name, f"{', '.join(unknown)}: not known here; use some of {', '.join(words)}")
    return tuple(word for word in given if word in words)


def _headers(section: Section) -> tuple[tuple[str, str], ...]:
    headers = []
    for name, allowed in _HEADERS.items():
        value = section.text(name).strip()
        if allowed and value and value not in allowed:
            section.note(name, f"{shown(value)} is not allowed; use one of {', '.join(allowed)}")
        elif not (value.isascii() and (value.isprintable() or not value)):
            section.note(name, "must be one line of plain ASCII characters")
        elif value:
            headers.append((name, value))
    return tuple(headers)


def _users(section: Section) -> dict[str, str]:
    users = {}
    for name in section:
        value = section.text(name)
        if ":" in name:
            section.note(name, "a user name must not have a colon in it: the protocol ends the name there")
        elif not _BCRYPT.fullmatch(value):
            section.note(
                name,
                "must be a bcrypt hash, of 60 characters that begin with $2a$, $2b$ or $2y$ (the value is not shown "
                "here); make one with: htpasswd -nBC 10 NAME",
            )
        else:
            users[name] = value
    return users


def _rate_limit(section: Section) -> tuple[float, int] | None:
    text = section.text("interval", "0")
    seconds = _duration(text)
    if seconds is None:
        section.note("interval", f"{shown(text)} is not a duration; write 500ms, 1s or 1m30s, or 0 for no limit")
    burst = section.text("burst", "0")
    if not burst.isascii() or not burst.isdigit():
        section.note("burst", f"{shown(burst)} is not a whole number")
    elif seconds and int(burst) < 1:
        section.note("burst", "must be at least 1: with 0, every request would be refused")
    elif seconds:
        return seconds, int(burst)
    return None


def _duration(text: str) -> float | None:
    """Seconds; the spelling of Go, where a bare number is nanoseconds."""
    if text.isascii() and text.isdigit():
        return int(text) * 1e-9
    parts = [(match[0].removesuffix(match[1]), match[1]) for match in _DURATION.finditer(text)]
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
