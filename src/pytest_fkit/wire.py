"""Messages as bytes: length, checksum, and the fields in marshal's format."""

from __future__ import annotations

import marshal
import os
import struct
import zlib
from typing import Any, Iterator, cast

from .messages import BY_NAME, Message

MARSHAL_VERSION = 4
"""Of marshal's format, which Python 3.4 to 3.14 read."""

_HEADER = struct.Struct("<II")
_DEEPEST = 50
_CARRIED = frozenset({type(None), bool, int, float, complex, bytes})


def pack(message: Message) -> bytes:
    """One frame.

    :raises ValueError: for fields that are not built-in values; see :func:`carriable`.
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


def carriable(value: object, _depth: int = 0) -> Any:
    """`value` in types that execnet and marshal can carry.

    Strings lose lone surrogates (they become backslash escapes), subclasses of built-in types
    become these, paths become strings, and everything else its ``repr``. The types are those of
    execnet's serialiser.
    """
    kind = type(value)
    if kind in _CARRIED:
        return value
    if kind is str and isinstance(value, str):
        return value if value.isascii() else _plain_text(value)
    if _depth > _DEEPEST:
        return "..."
    if isinstance(value, dict):
        return {
            carriable(key, _depth + 1): carriable(item, _depth + 1) for key, item in value.items()
        }
    if isinstance(value, list):
        return [carriable(item, _depth + 1) for item in value]
    if isinstance(value, tuple):
        return tuple([carriable(item, _depth + 1) for item in value])
    return _converted(value)


def _plain_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _converted(value: object) -> Any:
    for kind in (int, float, complex, str, bytes):
        if isinstance(value, kind):
            # Not kind(value), which asks the subclass, whose __str__ and the like may do anything.
            arguments = cast("Any", kind).__getnewargs__(value)
            base = kind(*arguments)
            return _plain_text(base) if isinstance(base, str) else base
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        return _plain_text(path) if isinstance(path, str) else path
    try:
        return _plain_text(repr(value))
    except Exception as error:  # noqa: BLE001 (a user's __repr__ may raise anything)
        return f"<unpresentable {type(value).__name__}: {type(error).__name__}>"
