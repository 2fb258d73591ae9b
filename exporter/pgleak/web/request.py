"""One request as it came over the wire. Everything here is a pure function of bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgleak.web.limits import Limits

_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# No two neighbours of a pattern match the same character: an unfriendly line costs no more than its length.
_REQUEST_LINE = re.compile(rf"({_WORD}) ([!-~\x80-\xff]+) HTTP/(\d)\.(\d)", re.ASCII)
_HEADER = re.compile(rf"({_WORD}):([^\x00-\x08\x0a-\x1f\x7f]*)", re.ASCII)
_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.%]+\])(?::\d{1,5})?", re.ASCII)
_ABSOLUTE = re.compile(r"\Ahttps?://[^/?#]*", re.IGNORECASE)
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


class RequestError(Exception):
    """The request cannot be understood or is too large. Carries the status and a sentence that is safe to send."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class Request:
    """One understood request; the names of its headers are in lower case."""

    method: str
    path: str
    query: str = field(repr=False)  # may hold a connection string that somebody tried to probe
    headers: Mapping[str, str] = field(repr=False)  # may hold a password
    last: bool = False  # the connection must not be used for another request
    peer: str = ""

    def header(self, name: str) -> str:
        return self.headers.get(name, "")

    def parameters(self, name: str) -> list[str]:
        """Every value of a query parameter; raises RequestError when the query cannot be read."""
        try:
            pairs = parse_qsl(self.query, keep_blank_values=True, errors="strict", max_num_fields=50)
        except ValueError:
            raise RequestError(400, "The query of the address cannot be read.") from None
        return [value for key, value in pairs if key == name]


def find_head(buffer: bytearray, limits: Limits, *, start: int = 0) -> int:
    """Where the head of a request ends, or 0 while there is more to come; raises RequestError when it grew too large."""
    end = _END_OF_HEAD.search(buffer, max(0, start - 3))
    size = end.end() if end else len(buffer)
    line = buffer.find(b"\n", 0, limits.request_line)
    if line < 0 and size > limits.request_line:
        raise RequestError(414, f"The request line is longer than {limits.request_line} bytes.")
    if size > limits.head:
        raise RequestError(431, f"The headers are longer than {limits.head} bytes.")
    return end.end() if end else 0


def parse_head(head: bytes, limits: Limits, peer: str = "") -> Request:
    """Reads a request line and headers; raises RequestError."""
    lines = [line.removesuffix("\r") for line in head.decode("latin-1").rstrip("\r\n").split("\n")]
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise RequestError(400, "This is not an HTTP/1.1 request.")
    method, target, major, minor = match.groups()
    if major != "1":
        raise RequestError(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    headers = _parse_headers(lines[1:], limits)
    host = headers.get("host")
    if host is None and minor != "0":
        raise RequestError(400, "The Host header is missing.")
    if host and not _HOST.fullmatch(host):
        raise RequestError(400, "The Host header is not a host name or address with an optional port.")
    path, _, query = _ABSOLUTE.sub("", target, count=1).partition("?")
    return Request(
        method=method,
        path=unquote(path) or "/",
        query=query,
        headers=headers,
        last=minor == "0" or _closes(headers),
        peer=peer,
    )


def _parse_headers(lines: list[str], limits: Limits) -> dict[str, str]:
    if len(lines) > limits.headers:
        raise RequestError(431, f"There are more than {limits.headers} headers.")
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise RequestError(400, "A header cannot be read.")
        name, value = match[1].lower(), match[2].strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _closes(headers: Mapping[str, str]) -> bool:
    """Whether this is the last request: the client says so, or a body follows, which is never read."""
    tokens = {token.strip() for token in headers.get("connection", "").lower().split(",")}
    return "close" in tokens or "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
