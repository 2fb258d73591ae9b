"""One answer, and how it is written down."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PLAIN = "text/plain; charset=utf-8"
_ALWAYS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
)
_REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer: nothing is sent before all of it is known, so its length always stands in its head."""

    status: int
    body: bytes
    content_type: str = PLAIN
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self, *, extra: Iterable[tuple[str, str]] = (), close: bool = False, head: bool = False) -> bytes:
        """The bytes to send. ``extra`` headers win over our own of the same name; ``head`` leaves the body out."""
        fields = {
            "Content-Type": self.content_type,
            "Content-Length": str(len(self.body)),
            "Date": formatdate(time.time(), usegmt=True),
        }
        fields.update(_ALWAYS)
        fields.update(self.headers)
        fields.update(extra)
        if close:
            fields["Connection"] = "close"
        lines = [f"HTTP/1.1 {self.status} {_REASONS[self.status]}", *(f"{k}: {v}" for k, v in fields.items())]
        text = "\r\n".join(lines) + "\r\n\r\n"
        return text.encode("latin-1") + (b"" if head else self.body)


def plain(status: int, text: str, *headers: tuple[str, str]) -> Response:
    """A short answer for people and scripts alike."""
    return Response(status, f"{text}\n".encode(), headers=headers)
