"""Messages as bytes: length, checksum, and the fields in marshal's format."""

from __future__ import annotations

import marshal
import struct
import zlib
from typing import Iterator

from .messages import BY_NAME, Message

MARSHAL_VERSION = 4
"""Of marshal's format, which Python 3.4 to 3.14 read."""

_HEADER = struct.Struct("<II")


def pack(message: Message) -> bytes:
    """One frame.

    :raises ValueError: for fields that are not built-in values; see :func:`.carriable.carriable`.
    """
    body = marshal.dumps((type(message).__name__, *message), MARSHAL_VERSION)
    return _HEADER.pack(len(body), zlib.crc32(body)) + body


def unpack(data: bytes) -> Message:
    """The message in the body of one frame."""
    name, *fields = marshal.loads(data)  # noqa: S302 (the checksum holds, and the writer is ours)
    return BY_NAME[name](*fields)


class Unpacker:
    """Cuts a stream of bytes into messages.

    A process may die in the middle of a frame, or write rubbish after its memory was corrupted;
    what follows the first frame that is not whole and sound is not read.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.broken = False

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take `data` in and yield the messages that are complete."""
        if self.broken:
            return
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            length, checksum = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            if zlib.crc32(body) != checksum:
                self.broken = True
                return
            yield unpack(body)


def whole_frames(data: bytes) -> int:
    """How many leading bytes of `data` are whole frames."""
    position = 0
    while position + _HEADER.size <= len(data):
        length, _ = _HEADER.unpack_from(data, position)
        if position + _HEADER.size + length > len(data):
            break
        position += _HEADER.size + length
    return position
