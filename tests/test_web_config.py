"""The web config file: what is taken, what is refused and how that is said."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import bcrypt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from pgleak import smallfile
from pgleak.web import WebConfigError, WebServer, config, policy
from pgleak.web.ciphers import CIPHERS, CURVES
from web_support import FakeSite, make_identity, make_server_identity

HASH = bcrypt.hashpw(b"MARKED-SECRET", bcrypt.gensalt(4)).decode()
FULL = f"""
# Every key that promtool 2.42 knows, as one finds it in the wild.
tls_server_config:
  cert_file: server.crt
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  min_version: TLS12
  max_version: TLS13
  cipher_suites:
    - TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    - TLS_AES_128_GCM_SHA256
  prefer_server_cipher_suites: yes
  curve_preferences: [X25519, CurveP256]
http_server_config:
  http2: true
  headers:
    Content-Security-Policy: "default-src 'self'"
    X-Frame-Options: deny
    X-Content-Type-Options: nosniff
    X-XSS-Protection: 0
    Strict-Transport-Security: max-age=31536000; includeSubDomains
basic_auth_users:
  alice: {HASH.replace("$2b$", "$2y$")}
  "bob the builder": {HASH.replace("$2b$", "$2a$")}
  1234: {HASH}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web")
    make_server_identity(folder)
    make_identity(folder, "ca", ca=True)
    return folder


def load(folder: Path, text: str) -> policy.Policy:
    return policy.load(write(folder, text))[0]


def write(folder: Path, text: str) -> Path:
    file = folder / "web.yml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(folder: Path, text: str) -> list[str]:
    """What is said about a file that is wrong, and never with its secrets."""
    with pytest.raises(WebConfigError) as caught:
        load(folder, text)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{folder / 'web.yml'}: this web config file cannot be used:"
    assert "MARKED-SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None
    return [line.strip() for line in lines]


def promtool_check(file: Path) -> subprocess.CompletedProcess[str]:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing; install it with: apt-get install prometheus"
    command = [promtool, "check", "web-config", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_file_that_prometheus_takes_is_taken(folder: Path) -> None:
    done = promtool_check(write(folder, FULL))
    assert done.returncode == 0, done.stderr
    loaded = load(folder, FULL)
    assert loaded.tls is not None
    assert loaded.auth is not None
    assert dict(loaded.headers) == {
        "Content-Security-Policy": "default-src 'self'",
        "X-Frame-Options": "deny",
        "X-Content-Type-Options": "nosniff",
        "X-XSS-Protection": "0",
        "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    }


def test_ciphers_and_curves_that_prometheus_knows_are_known(folder: Path) -> None:
    text = (
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
        f"  cipher_suites: [{', '.join(CIPHERS)}]\n  curve_preferences: [{', '.join(CURVES)}]\n"
    )
    done = promtool_check(write(folder, text))
    assert done.returncode == 0, done.stderr
    loaded = load(folder, text)
    assert loaded.tls is not None
    offered = {cipher["name"] for cipher in loaded.tls.context.get_ciphers()}
    assert offered >= {name for name in CIPHERS.values() if name}, "OpenSSL has another name for one of them"


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "{}", "basic_auth_users:\n", "tls_server_config:\n"])
def test_an_empty_file_asks_for_nothing(folder: Path, text: str) -> None:
    assert promtool_check(write(folder, text)).returncode == 0
    loaded = load(folder, text)
    assert (loaded.tls, loaded.auth, loaded.headers, loaded.bucket) == (None, None, (), None)


def test_newer_keys_are_taken_too(folder: Path) -> None:
    """Certificates in the file itself, client names, and the rate limit came after promtool 2.42."""
    server = (folder / "server.crt").read_text().replace("\n", "\n    ")
    key = (folder / "server.key").read_text().replace("\n", "\n    ")
    authority = (folder / "ca.crt").read_text().replace("\n", "\n    ")
    text = f"""
tls_server_config:
  cert: |
    {server}
  key: |
    {key}
  client_ca: |
    {authority}
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [prometheus.example, "2001:DB8::1"]
rate_limit:
  interval: 1m30s
  burst: 20
"""
    parsed, wrong = config.parse(text, folder / "web.yml")
    assert wrong == []
    assert parsed.rate_limit == (90.0, 20)
    assert parsed.files == ()
    assert "PRIVATE" not in repr(parsed)
    loaded = load(folder, text)
    assert loaded.tls is not None
    assert loaded.tls.allowed_sans == frozenset({"prometheus.example", "2001:db8::1"})


def test_yaml_anchors_work_as_everywhere(folder: Path) -> None:
    text = f"x: &users {{alice: '{HASH}'}}\nbasic_auth_users:\n  <<: *users\n  bob: '{HASH}'\n"
    parsed, wrong = config.parse(text, folder / "web.yml")
    assert [str(problem) for problem in wrong] == [
        "x (line 1): unknown key; the keys here are tls_server_config, http_server_config, basic_auth_users, rate_limit"
    ]
    assert set(parsed.users) == {"alice", "bob"}


def test_merges_of_merges_count_and_one_of_itself_ends(folder: Path) -> None:
    text = f"basic_auth_users: &all {{<<: [{{<<: {{alice: '{HASH}'}}, bob: '{HASH}'}}, *all], carol: '{HASH}'}}\n"
    assert set(config.parse(text, folder / "web.yml")[0].users) == {"alice", "bob", "carol"}
    first, second = HASH.replace("$2b$", "$2a$"), HASH.replace("$2b$", "$2y$")
    text = f"basic_auth_users: {{<<: [{{alice: '{first}'}}, {{alice: '{second}'}}]}}\n"
    assert config.parse(text, folder / "web.yml")[0].users == {"alice": first}


def test_every_problem_is_reported_at_once_with_its_key_and_what_to_do(folder: Path) -> None:
    text = """\
tls_server_config:
  cert_fil: server.crt
  key_file: missing.key
  client_auth_type: RequireCert
  min_version: TLS1.2
  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA, TLS_AES_128_GCM_SHA256, x]
  curve_preferences: X25519
  prefer_server_cipher_suites: maybe
http_server_config:
  http2: 2
  headers:
    X-Frame-Options: never
    Server: mine
    Strict-Transport-Security: "a\\nb"
basic_auth_users:
  alice: MARKED-SECRET
  bob: [MARKED-SECRET]
  "car:ol": x
rate_limit:
  interval: soon
  burst: -1
basic_auth_user: {}
"""
    assert problems(folder, text) == [
        "tls_server_config.cert_fil (line 2): unknown key; did you mean cert_file?",
        (
            "tls_server_config.client_auth_type (line 4): 'RequireCert' is not allowed; use one of NoClientCert, "
            "RequestClientCert, RequireAnyClientCert, RequireClientCert, VerifyClientCertIfGiven, "
            "RequireAndVerifyClientCert"
        ),
        "tls_server_config.min_version (line 5): 'TLS1.2' is not allowed; use one of TLS10, TLS11, TLS12, TLS13",
        "tls_server_config.cipher_suites (line 6): 'TLS_RSA_WITH_RC4_128_SHA', 'x': not known here; use some of "
        + ", ".join(CIPHERS),
        "tls_server_config.curve_preferences (line 7): must be a list of single values",
        "tls_server_config.prefer_server_cipher_suites (line 8): must be true or false, not 'maybe'",
        "http_server_config.http2 (line 10): must be true or false, not '2'",
        "http_server_config.headers.X-Frame-Options (line 12): 'never' is not allowed; use one of deny, sameorigin",
        (
            "http_server_config.headers.Server (line 13): unknown key; the keys here are Content-Security-Policy, "
            "X-Frame-Options, X-Content-Type-Options, X-XSS-Protection, Strict-Transport-Security"
        ),
        "http_server_config.headers.Strict-Transport-Security (line 14): must be one line of plain ASCII characters",
        (
            "basic_auth_users.alice (line 16): must be a bcrypt hash, of 60 characters that begin with $2a$, $2b$ or $2y$ "
            "(the value is not shown here); make one with: htpasswd -nBC 10 NAME"
        ),
        "basic_auth_users.bob (line 17): must be a single value, not a list",
        "basic_auth_users.car:ol (line 18): a user name must not have a colon in it: the protocol ends the name there",
        "rate_limit.interval (line 20): 'soon' is not a duration; write 500ms, 1s or 1m30s, or 0 for no limit",
        "rate_limit.burst (line 21): '-1' is not a whole number",
        "basic_auth_user (line 22): unknown key; did you mean basic_auth_users?",
        "tls_server_config.cert_file: is missing: TLS needs a certificate and a key, so set cert_file or cert",
        f"tls_server_config.key_file: {folder}/missing.key: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        ("{key_file: server.key}", "tls_server_config.cert_file: is missing"),
        ("{cert_file: server.crt}", "tls_server_config.key_file: is missing"),
        (
            "{cert_file: server.crt, key_file: ca.key}",
            "does not belong to the private key of tls_server_config.key_file",
        ),
        ("{cert_file: server.key, key_file: server.key}", "server.key: must hold a certificate in PEM form"),
        ("{cert_file: server.crt, key_file: server.crt}", "server.crt: must hold a private key in PEM form"),
        ("{cert_file: damaged.crt, key_file: server.key}", "OpenSSL refuses this certificate or its key"),
        ("{cert_file: server.crt, key_file: locked.key}", "tls_server_config.key_file: the private key is encrypted"),
        ("{cert_file: ., key_file: server.key}", ": Is a directory"),
        ('{cert_file: "a\\0b", key_file: server.key}', "is not a path"),
        ("{cert_file: server.crt, key: MARKED-SECRET}", "tls_server_config.key: must hold a private key in PEM form"),
        (
            "{cert_file: server.crt, key_file: server.key, client_ca_file: ca.crt}",
            "client_ca_file (line 1): is of no use without a client_auth_type; use RequireAndVerifyClientCert, or remove",
        ),
        (
            (
                "{cert_file: server.crt, key_file: server.key, client_ca_file: ca.key, "
                "client_auth_type: RequireAndVerifyClientCert}"
            ),
            "tls_server_config.client_ca_file: ",
        ),
        (
            (
                "{cert_file: server.crt, key_file: server.key, client_ca_file: damaged.crt, "
                "client_auth_type: RequireAndVerifyClientCert}"
            ),
            "OpenSSL refuses these certificates",
        ),
        (
            "{cert_file: server.crt, key_file: server.key, client_allowed_sans: [a]}",
            "client_allowed_sans (line 1): is of no use while client_auth_type is NoClientCert",
        ),
        (
            "{cert_file: server.crt, key_file: server.key, client_auth_type: RequireAnyClientCert}",
            (
                "client_auth_type (line 1): 'RequireAnyClientCert' is not supported, as it takes a certificate that anybody "
                "can make; use RequireAndVerifyClientCert with client_ca_file"
            ),
        ),
        (
            "{cert_file: server.crt, key_file: server.key, max_version: TLS11}",
            "max_version (line 1): 'TLS11' is not supported: TLS 1.2 is the oldest spoken here",
        ),
        (
            "{cert_file: server.crt, key_file: server.key, min_version: TLS13, max_version: TLS12}",
            "min_version (line 1): 'TLS13' is newer than max_version, 'TLS12'",
        ),
        (
            "{cert_file: server.crt, key_file: server.key, max_version: TLS12, cipher_suites: [TLS_AES_128_GCM_SHA256]}",
            "cipher_suites (line 1): has no cipher for TLS 1.2",
        ),
        ("[cert_file]", "tls_server_config (line 1): must be a mapping of keys to values, not a list"),
    ],
)
def test_tls_that_cannot_work_is_refused_by_name(folder: Path, tls: str, said: str) -> None:
    (folder / "damaged.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    locked = make_identity(folder, "other").key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )
    (folder / "locked.key").write_bytes(locked)
    found = problems(folder, f"tls_server_config: {tls}\n")
    assert len(found) == 1, found
    assert said in found[0]


@pytest.mark.parametrize(
    ("tls", "note"),
    [
        ("{min_version: TLS13}", "tls_server_config names no certificate: TLS stays off"),
        (
            "{cert_file: server.crt, key_file: server.key, min_version: TLS10}",
            "tls_server_config.min_version: TLS10 is read as TLS12, the oldest version spoken here",
        ),
        (
            "{cert_file: server.crt, cert: x, key_file: server.key}",
            "tls_server_config.cert is ignored, because tls_server_config.cert_file is set too",
        ),
        (
            "{cert_file: server.crt, key_file: server.key, client_auth_type: RequestClientCert}",
            (
                "tls_server_config.client_auth_type: RequestClientCert asks for a certificate and ignores it; none is asked "
                "for"
            ),
        ),
        (
            "{cert_file: server.crt, key_file: server.key, client_auth_type: RequireAndVerifyClientCert}",
            (
                "tls_server_config.client_auth_type: without client_ca_file, every certificate from a public authority is "
                "trusted"
            ),
        ),
    ],
)
def test_what_is_read_otherwise_than_it_looks_is_noted(folder: Path, tls: str, note: str) -> None:
    assert load(folder, f"tls_server_config: {tls}\n").notes == (note,)


def test_curves_are_offered_one_by_one_or_refused(folder: Path) -> None:
    """Before Python 3.15 only one can be set, and in some builds of older ones that one cannot be X25519."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ecdh_curve("X25519")
        takes_x25519 = True
    except (ssl.SSLError, ValueError):
        takes_x25519 = False
    tls = "tls_server_config: {cert_file: server.crt, key_file: server.key, curve_preferences: [%s]}\n"
    one = "X25519" if takes_x25519 else "CurveP256"
    said = (
        (
            f"tls_server_config.curve_preferences: of these, only {one} is offered, as this version of Python can "
            "offer only one"
        ),
    )
    assert load(folder, tls % "X25519, CurveP256").notes == (() if sys.version_info >= (3, 15) else said)
    if takes_x25519:
        assert load(folder, tls % "X25519").notes == ()
    else:
        assert problems(folder, tls % "X25519") == [
            "tls_server_config.curve_preferences: this version of Python cannot offer it; add CurveP256, or remove the key"
        ]


@pytest.mark.parametrize(
    "text",
    [
        "basic_auth_users: {alice: MARKED-SECRET",
        "basic_auth_users:\n  alice: *MARKED-SECRET\n",
        "basic_auth_users:\n  alice: !MARKED-SECRET x\n",
        "basic_auth_users:\n  alice: 'MARKED-SECRET\n",
        "basic_auth_users:\n alice: MARKED-SECRET: b\n",
        "basic_auth_users:\n\talice: MARKED-SECRET\n",
        "a: &MARKED-SECRET 1\nb: &MARKED-SECRET 2\nc: @MARKED-SECRET\n",
        "MARKED-SECRET: \x07\n",
        "--- 1\n--- MARKED-SECRET\n",
        "MARKED-SECRET",
        "- MARKED-SECRET",
        "? [MARKED-SECRET]\n: 1\n",
        "basic_auth_users:\n  alice: 1\n  alice: MARKED-SECRET\n",
        "[" * 1000,
    ],
)
def test_a_file_that_is_not_yaml_is_refused_without_quoting_it(folder: Path, text: str) -> None:
    assert problems(folder, text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(WebConfigError, match="No such file or directory") as caught:
        WebServer(FakeSite(), "127.0.0.1", 0, web_config_file=tmp_path / "none.yml")
    assert str(tmp_path / "none.yml") in str(caught.value)
    with pytest.raises(WebConfigError, match="Is a directory"):
        policy.load(tmp_path)
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WebConfigError, match="not UTF-8"):
        policy.load(tmp_path / "binary.yml")


def test_a_pipe_is_refused_where_a_second_reading_would_find_no_passwords(tmp_path: Path) -> None:
    """`--web-config <(decrypt web.yml)` once served everybody: the file is read again, and the pipe was empty by then."""
    pipe = tmp_path / "web.yml"
    os.mkfifo(pipe)
    descriptor = os.open(pipe, os.O_RDWR)  # holds what is written, as a shell's <(...) does
    try:
        os.write(descriptor, f"basic_auth_users: {{alice: {HASH}}}\n".encode())
        with pytest.raises(WebConfigError, match="not a regular file"):
            WebServer(FakeSite(), "127.0.0.1", 0, web_config_file=Path(f"/dev/fd/{descriptor}"))
        with pytest.raises(WebConfigError, match="not a regular file"):
            WebServer(FakeSite(), "127.0.0.1", 0, web_config_file=pipe)
    finally:
        os.close(descriptor)


def test_no_file_is_read_without_end(folder: Path) -> None:
    with pytest.raises(WebConfigError, match="not a regular file"):
        policy.load(Path("/dev/zero"))
    (folder / "huge").write_bytes(b"#" * (smallfile.LARGEST + 1))
    with pytest.raises(WebConfigError, match="too large: 1,048,576 bytes are allowed"):
        policy.load(folder / "huge")
    tls = "{cert_file: huge, key_file: /dev/zero, client_ca_file: huge, client_auth_type: VerifyClientCertIfGiven}"
    assert problems(folder, f"tls_server_config: {tls}\n") == [
        f"tls_server_config.cert_file: {folder / 'huge'}: too large: 1,048,576 bytes are allowed",
        "tls_server_config.key_file: /dev/zero: not a regular file, and only such a one can be read again",
        f"tls_server_config.client_ca_file: {folder / 'huge'}: too large: 1,048,576 bytes are allowed",
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("1.5h", 5400.0),
        ("1m30s", 90.0),
        ("250ms", 0.25),
        (".5s", 0.5),
        ("2us", 2e-6),
        ("0", 0.0),
        ("1000000000", 1.0),  # a bare number is nanoseconds in this format
        ("", None),
        ("s", None),
        ("1", 1e-9),
        ("1s 2s", None),
        ("-1s", None),
        ("1d", None),
        ("one second", None),
    ],
)
def test_durations_are_read_as_in_go(text: str, seconds: float | None) -> None:
    assert config._duration(text) == (None if seconds is None else pytest.approx(seconds))


def test_a_rate_limit_that_lets_nothing_through_is_refused(folder: Path) -> None:
    assert problems(folder, "rate_limit: {interval: 1s}\n") == [
        "rate_limit.burst: must be at least 1: with 0, every request would be refused"
    ]
    assert load(folder, "rate_limit: {interval: 0, burst: 0}\n").bucket is None


KEYS = (
    "tls_server_config",
    "basic_auth_users",
    "rate_limit",
    "cert",
    "key",
    "cert_file",
    "headers",
    "alice",
    "interval",
)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.just("MARKED-SECRET") | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
        max_leaves=8,
    )
)
@settings(deadline=None, max_examples=100)
def test_no_document_makes_the_reader_fail_otherwise_than_by_problems(document: object) -> None:
    """And none of its values is shown where a secret may stand."""
    import json
    from pathlib import Path

    parsed, wrong = config.parse(json.dumps(document), Path("/nowhere/web.yml"))
    assert "MARKED-SECRET" not in repr(parsed.users)
    secret_places = [
        str(problem) for problem in wrong if problem.path.startswith(("basic_auth_users", "tls_server_config.key"))
    ]
    assert "MARKED-SECRET" not in "".join(secret_places)
