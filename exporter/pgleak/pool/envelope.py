"""A record in a file that is rewritten in place: two slots that take turns, each with a length and a checksum.

A reader that comes in the middle of a write, and a writer that is killed in the middle of one, leave the other slot
whole. The slots lie far apart in a sparse file, so a record may grow without anything being moved.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass

_MAGIC = b"pgleak\x00\x01"
_HEAD = struct.Struct("<8sQd16sI")  # magic, sequence, stamp, token, length; the checksum of it all follows
_CHECKSUM = struct.Struct("<I")
_START = _HEAD.size + _CHECKSUM.size
_SLOT = 4 << 20

#: The largest payload in bytes.
LIMIT = _SLOT - _START


class DamagedRecordError(ValueError):
    """No slot of the file holds a whole record. `reason` is one of `truncated`, `foreign`, `too_large`, `checksum`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Record:
    """What one write leaves behind."""

    sequence: int  # counts the writes of one file; the higher one of two is the newer
    stamp: float  # seconds on the clock of the writer's choice
    token: bytes  # 16 bytes that the file's name repeats, so that a copy under another name is not believed
    payload: bytes


def write(descriptor: int, record: Record) -> None:
    """Write the record over the older of the file's two. Raises OSError; ValueError when it is larger than LIMIT."""
    if len(record.payload) > LIMIT:
        raise ValueError("the record is larger than a slot")
    head = _HEAD.pack(_MAGIC, record.sequence, record.stamp, record.token, len(record.payload))
    checksum = _CHECKSUM.pack(zlib.crc32(record.payload, zlib.crc32(head)))
    data = head + checksum + record.payload
    offset = record.sequence % 2 * _SLOT
    while data:  # a full disk writes less and then fails
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def read(descriptor: int, attempts: int = 5) -> Record:
    """The newest whole record of the file. Raises OSError, or DamagedRecordError when there is none."""
    try:
        return _read(descriptor)
    except DamagedRecordError as error:
        # a writer that came round twice while we read spoils both slots; nobody does that five times in a row
        if error.reason != "checksum" or attempts == 1:
            raise
    return read(descriptor, attempts - 1)


def _read(descriptor: int) -> Record:
    heads: list[tuple[int, int, float, bytes, int, bytes]] = []
    reason = "truncated"
    for offset in (0, _SLOT):
        head = os.pread(descriptor, _START, offset)
        if len(head) < _START:
            continue
        magic, sequence, stamp, token, length = _HEAD.unpack_from(head)
        if magic == _MAGIC:
            heads.append((sequence, offset, stamp, token, length, head))
        elif any(head):  # a hole, where nothing was ever written, reads as zeros
            reason = "foreign"
    for sequence, offset, stamp, token, length, head in sorted(heads, reverse=True):
        if length > LIMIT:
            reason = "too_large"
            continue
        payload = os.pread(descriptor, length, offset + _START)
        if len(payload) < length:
            reason = "truncated"
        elif zlib.crc32(payload, zlib.crc32(head[: _HEAD.size])) != _CHECKSUM.unpack_from(head, _HEAD.size)[0]:
            reason = "checksum"
        else:
            return Record(sequence, stamp, token, payload)
    raise DamagedRecordError(reason)
