"""The protocol: what is understood, what is refused, and in which form answers come."""

from __future__ import annotations

import contextlib
import gzip
import logging
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pgleak.web import Limits, negotiation
from pgleak.web.request import RequestError, find_head, parse_head
from web_support import Client, FakeSite, get, raw, serving, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgleak.web import WebServer

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;"
    "q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
LIMITS = Limits()


@pytest.fixture(scope="module")
def server() -> Iterator[WebServer]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def big() -> Iterator[WebServer]:
    with serving(FakeSite(rows=500)) as server:
        yield server


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS on the plain port
        (b"GET\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /met rics HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: <script>\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nName : space\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: folded\r\n line\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: nul\x00\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: car\rriage\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /" + b"a" * 9000, 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
def test_what_is_not_understood_gets_a_short_clear_error_and_the_connection_ends(
    server: WebServer, request_bytes: bytes, status: int
) -> None:
    with Client(server) as client:
        client.send(request_bytes)
        answer = client.answer()
        assert client.at_end()
    assert answer.status == status
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["connection"] == "close"
    assert answer.text.endswith(".\n")
    assert len(answer.text) < 100


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /-/healthy HTTP/1.0\r\n\r\n",
        b"GET /-/healthy HTTP/1.0\n\n",  # typed by hand
        b"\r\n\r\nGET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a:1/-/healthy HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /%2D/healthy?x=http://b/ HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        b"GET /-/healthy HTTP/1.1\r\nhOsT:\r\nX-Empty:\r\nX-Latin: \xe9\r\n\r\n",
    ],
)
def test_unusual_but_correct_requests_are_answered(server: WebServer, request_bytes: bytes) -> None:
    assert raw(server, request_bytes).status == 200


def test_requests_follow_each_other_on_one_connection(server: WebServer) -> None:
    with Client(server) as client:
        for path in ("/metrics", "/nothing", "/-/healthy", "/probe", "/metrics"):
            answer = client.get(path)
            assert "connection" not in answer.headers
        client.send(b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\nGET /-/ready HTTP/1.1\r\nHost: a\r\n\r\n")
        assert [client.answer().text, client.answer().text] == ["pgleak is healthy.\n", "pgleak is ready.\n"]


def test_a_connection_ends_when_the_client_wishes_so(server: WebServer) -> None:
    with Client(server) as client:
        assert client.get("/metrics", Connection="Keep-Alive, Close").headers["connection"] == "close"
        assert client.at_end()


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 11\r\n\r\nhello world",
        b"Content-Length: 1000000000\r\n\r\nhello",
        b"Content-Length: nonsense\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: 40\r\n\r\nGET /-/healthy HTTP/1.1\r\nHost: smuggled\r\n\r\n",
    ],
)
def test_a_body_is_never_read_and_never_taken_for_a_request(server: WebServer, rest: bytes) -> None:
    for method, status in ((b"POST", 405), (b"GET", 200)):
        with Client(server) as client:
            client.send(method + b" /metrics HTTP/1.1\r\nHost: a\r\n" + rest)
            answer = client.answer()
            assert answer.status == status
            assert answer.headers["connection"] == "close"
            assert client.at_end()


def test_a_large_body_does_not_destroy_the_answer(server: WebServer) -> None:
    """Closing with input unread would reset the connection under an answer that is still on its way."""
    with Client(server) as client:
        client.send(b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
        assert client.answer().status == 405


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html,application/xhtml+xml", "text/plain; version=0.0.4; charset=utf-8"),
        (PROMETHEUS_2, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (PROMETHEUS_3, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("APPLICATION/OpenMetrics-Text;Version=1.0.0", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.9", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;q=0,text/plain", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=nonsense", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=99.0.0", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=1.0.0;escaping=nonsense", "text/plain; version=1.0.0; charset=utf-8"),
        (";;;,,,=;q=x", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;q=nan", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_the_format_is_the_one_that_the_client_likes_best(server: WebServer, accept: str, content_type: str) -> None:
    answer = get(server, "/metrics", Accept=accept)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith(content_type)
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    parse = parse_openmetrics if "openmetrics" in content_type else parse_text
    assert [family.name for family in parse(answer.text)] == ["pgleak_connections"]


@pytest.mark.parametrize(
    ("accept_encoding", "squeezed"),
    [
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("GZIP;q=0.1", True),
        ("*", True),
        ("br;q=1, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip;q=0.0, *", False),
        ("*;q=0", False),
        ("identity", False),
        ("gzip;q=nonsense", False),
        ("", False),
    ],
)
def test_large_answers_are_compressed_for_those_who_take_it(
    big: WebServer, accept_encoding: str, squeezed: bool
) -> None:
    plain = get(big, "/metrics")
    answer = get(big, "/metrics", Accept_Encoding=accept_encoding)
    assert answer.headers.get("content-encoding") == ("gzip" if squeezed else None)
    assert "Accept-Encoding" in answer.headers["vary"]
    assert answer.text == plain.text
    assert int(answer.headers["content-length"]) == len(answer.raw)
    if squeezed:
        assert len(answer.raw) < len(plain.raw) / 5
        assert gzip.decompress(answer.raw) == plain.raw


def test_small_answers_are_not_compressed(server: WebServer) -> None:
    assert "content-encoding" not in get(server, "/metrics", Accept_Encoding="gzip").headers


def test_a_client_that_leaves_in_the_middle_is_no_error(big: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for data in (b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 20):
            with Client(big) as client:
                client.send(data)
                # Hang up with a reset, as a client that is killed may.
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert get(big, "/-/healthy").status == 200
        until(lambda: len(big._house.crowd) == 0)
    assert caplog.records == []


def test_requests_are_logged_for_debugging_only(server: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "pgleak.web"):
        get(server, "/probe?target=main")
        get(server, "/postgres://app:MARKED-SECRET@db/orders?password=MARKED-SECRET")
        until(lambda: len([record for record in caplog.records if " GET " in record.getMessage()]) == 2)
    lines = [record.getMessage() for record in caplog.records if " GET " in record.getMessage()]
    assert all(record.levelno == logging.DEBUG for record in caplog.records)
    assert lines[0].startswith("127.0.0.1 GET /probe 200 ")
    assert lines[1].startswith("127.0.0.1 GET (no such address) 404 ")
    assert "MARKED-SECRET" not in caplog.text


def test_no_status_puts_an_unknown_address_into_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tmp_path / "web.yml"
    config.write_text(f"basic_auth_users: {{alice: $2b$04${'.' * 53}}}\n", encoding="utf-8")
    with caplog.at_level(logging.DEBUG, "pgleak.web"), serving(web_config_file=config) as server:
        assert get(server, "/postgres://app:MARKED-SECRET@db/orders").status == 401
        until(lambda: " 401 " in caplog.text)
    assert "MARKED-SECRET" not in caplog.text


@given(st.binary(max_size=300), st.binary(max_size=300))
@settings(deadline=None)
def test_no_bytes_make_the_parser_fail_otherwise_than_by_a_refusal(before: bytes, after: bytes) -> None:
    for data in (before + after, b"GET /" + before + b" HTTP/1.1\r\nHost: a\r\n" + after + b"\r\n\r\n"):
        with contextlib.suppress(RequestError):
            end = find_head(bytearray(data), LIMITS)
            if end:
                request = parse_head(data[:end], LIMITS)
                assert request.path
                request.parameters("target")


@given(st.text(alphabet='aplictonexgz/-*;,=q.0123456789 "ve\x00é', max_size=120))
@settings(deadline=None)
def test_no_accept_header_makes_negotiation_fail(header: str) -> None:
    openmetrics, content_type = negotiation.exposition(header)
    expected = "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain; version="
    assert content_type.startswith(expected)
    assert negotiation.accepts_gzip(header) in {True, False}
    assert 0 < negotiation.budget(header, limit=8.0, offset=0.5) <= 8.0
