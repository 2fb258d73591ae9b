"""The connections that are open, so many and no more: whoever keeps the server waiting longest makes room."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_TIME_TO_TAKE = 1.0  # seconds that a client has to take its answer, even while others wait for its place
_LOOK_AGAIN = 0.25  # seconds between looks at whether the server stops, while waiting for a place


class Phase(Enum):
    """Whom a connection waits for."""

    READING = "the client's request"
    WORKING = "the server's answer"
    SENDING = "the client's taking the answer"


class Member:
    """One connection as the crowd sees it. TLS puts another socket in place, under the crowd's lock."""

    __slots__ = ("phase", "since", "sock")

    def __init__(self, sock: socket.socket, since: float) -> None:
        self.sock = sock
        self.phase = Phase.READING
        self.since = since  # of the present phase

    def cut(self) -> None:
        """End whatever the connection's thread waits for. The thread itself closes the socket."""
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown, which takes the TLS state away from the thread that uses it.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class Crowd:
    """A bounded set of connections. Thread-safe; membership ends before a socket is closed, never after."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._members: set[Member] = set()
        self._closed = False
        self._changed = threading.Condition(threading.Lock())

    def __len__(self) -> int:
        return len(self._members)

    @property
    def closed(self) -> bool:
        """Whether the server stops: an answer is then the last one of its connection."""
        return self._closed

    def admit(self, sock: socket.socket) -> Member | None:
        """Take a connection in, at the expense of the longest-stalled one when full; None once closed.

        Waits for a place only while every single request is being answered: deadlines bound that.
        """
        with self._changed:
            while not self._closed:
                if len(self._members) < self._limit or self._cut_longest_stalled():
                    member = Member(sock, self._clock())
                    self._members.add(member)
                    return member
                self._changed.wait(_LOOK_AGAIN)
            return None

    def refuse(self) -> None:
        """Take nobody in from now on. Takes no lock, so that a signal handler may call it."""
        self._closed = True

    def make_room(self) -> None:
        """Close the longest-stalled connection, if one is, for when file descriptors run out."""
        with self._changed:
            self._cut_longest_stalled()

    def enter(self, member: Member, phase: Phase) -> bool:
        """Note whom a connection waits for now; False when it has been cut, or may not wait for another request."""
        with self._changed:
            if member not in self._members or (self._closed and phase is Phase.READING):
                return False
            member.phase = phase
            member.since = self._clock()
            if phase is Phase.READING:
                self._changed.notify()
            return True

    @contextlib.contextmanager
    def replacing(self) -> Iterator[None]:
        """Hold cuts off while the block lasts, so that it may put another socket in a member's place."""
        with self._changed:
            yield

    def leave(self, member: Member) -> None:
        """Forget a connection. Harmless when it is not there any more."""
        with self._changed:
            self._members.discard(member)
            self._changed.notify_all()

    def close(self, grace: float) -> None:
        """End all connections: at once where no request is under way, after ``grace`` seconds in any case."""
        deadline = self._clock() + grace
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._cut([member for member in self._members if member.phase is Phase.READING])
            while self._members and (left := deadline - self._clock()) > 0:
                self._changed.wait(left)
            self._cut(list(self._members))

    def _cut_longest_stalled(self) -> bool:
        taking = self._clock() - _TIME_TO_TAKE
        stalled = [
            member
            for member in self._members
            if member.phase is Phase.READING or (member.phase is Phase.SENDING and member.since <= taking)
        ]
        if not stalled:
            return False
        self._cut([min(stalled, key=lambda member: member.since)])
        return True

    def _cut(self, members: list[Member]) -> None:
        for member in members:
            member.cut()
            self._members.discard(member)
