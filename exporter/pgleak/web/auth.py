"""Basic authentication against bcrypt hashes, at a price that a scraper does not pay each time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import bcrypt

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"  # bcrypt's own base64
_LONGEST = 72  # bytes; bcrypt looks at no more, and newer versions of the package refuse more
_REMEMBERED = 64  # proven credentials
_ADDRESSES = 1024  # whose attempts are counted


class TooManyAttemptsError(Exception):
    """More passwords wait to be checked than can be checked in time."""


class BasicAuth:
    """Checks Authorization headers. Thread-safe; forgets everything with the config that it belongs to."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = {name.encode(): _canonical(hash_).encode() for name, hash_ in users.items()}
        # What an unknown user is checked against: as expensive as the most expensive known one.
        self._decoy = max(self._users.values(), key=lambda hash_: hash_[4:6])
        self._secret = secrets.token_bytes(32)
        self._proven: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()
        self._line = _Line()

    def allows(self, header: str, peer: str) -> bool:
        """Tell whether the header proves a user; raises TooManyAttemptsError. ``peer`` is the address that asks."""
        credentials = _credentials(header)
        if credentials is None:
            return False
        user, password = credentials
        digest = self._digest(user, password)
        with self._lock:
            if digest in self._proven:
                self._proven.move_to_end(digest)
                return True
        known = user in self._users
        turn = self._line.turn(peer)
        with turn:
            matches = bcrypt.checkpw(password[:_LONGEST], self._users.get(user, self._decoy))
            turn.succeeded = known and matches
        if turn.succeeded:
            with self._lock:
                self._proven[digest] = None
                if len(self._proven) > _REMEMBERED:
                    self._proven.popitem(last=False)
        return turn.succeeded

    def _digest(self, user: bytes, password: bytes) -> bytes:
        """Stands for the credentials in memory, and is of no use without the secret of this process."""
        text = len(user).to_bytes(4, "big") + user + password
        return hashlib.blake2b(text, key=self._secret, digest_size=32).digest()


def _credentials(header: str) -> tuple[bytes, bytes] | None:
    """User and password of an Authorization header, or None where there are none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    if not colon or b"\0" in password:  # a null character ends a password for some bcrypt versions
        return None
    return user, password


def _canonical(hash_: str) -> str:
    """The hash with the unused bits of its salt cleared, which some programs leave set and the package refuses."""
    last = len("$2b$10$") + 21
    used = _ALPHABET.index(hash_[last]) & 0b110000
    return f"{hash_[:last]}{_ALPHABET[used]}{hash_[last + 1 :]}"


class _Turn:
    """One check of a password, first waiting, then under way."""

    __slots__ = ("_line", "attempts", "go", "peer", "refused", "succeeded")

    def __init__(self, line: _Line, peer: str, attempts: int) -> None:
        self._line = line
        self.peer = peer
        self.attempts = attempts  # of the same address, since it last succeeded
        self.go = threading.Event()
        self.refused = False
        self.succeeded = False

    def __enter__(self) -> None:
        self.go.wait()
        if self.refused:
            raise TooManyAttemptsError

    def __exit__(self, *_: object) -> None:
        self._line.finish(self)


class _Line:
    """Lets one check run at a time, so that guessing takes no more than one processor.

    The address with the fewest attempts since its last success goes first: a scraper that starts, or whose password
    has just changed, need not wait behind those who guess. The line is short; who tried most is turned away from it.
    """

    _LENGTH = 16

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: list[_Turn] = []  # those with fewer attempts first, then in order of arrival
        self._attempts: OrderedDict[str, int] = OrderedDict()

    def turn(self, peer: str) -> _Turn:
        with self._lock:
            turn = _Turn(self, peer, self._attempts.pop(peer, 0))
            self._attempts[peer] = turn.attempts + 1
            if len(self._attempts) > _ADDRESSES:
                self._attempts.popitem(last=False)
            if not self._busy:
                self._busy = True
                turn.go.set()
                return turn
            self._waiting.append(turn)
            self._waiting.sort(key=lambda waiting: waiting.attempts)
            if len(self._waiting) > self._LENGTH:
                last = self._waiting.pop()
                last.refused = True
                last.go.set()
            return turn

    def finish(self, turn: _Turn) -> None:
        with self._lock:
            if turn.succeeded:
                self._attempts.pop(turn.peer, None)
            if self._waiting:
                self._waiting.pop(0).go.set()
            else:
                self._busy = False
