"""Lines of source files, which may have changed, be gone, or be no sources at all."""

from __future__ import annotations

import re
from typing import Sequence

from ..named_tuple import NamedTuple
from ..own import os, own_builtins

own_builtins(globals())

_LARGEST = 8 << 20
"""Bytes of a file that is read."""

_WIDEST = 200
"""Characters of a line that are shown."""

_LINE_END = re.compile(rb"\r\n|\r|\n")

# PEP 263, in one of the first two lines.
_CODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")

# What ends a line for str.splitlines, or moves a terminal's cursor.
_UNSHOWABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_REGULAR = 0o100000
_TYPE_OF_FILE = 0o170000


class Excerpt(NamedTuple):
    """Some lines of a file.

    :param first: the number of the first one, from 1.
    :param lines: none if the file can't be read, or has no such line.
    :param changed: when the file was changed last, in seconds since the epoch.
    """

    first: int
    lines: Sequence[str]
    changed: float


NOTHING = Excerpt(1, (), 0.0)


class Sources:
    """Reads each file once."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[list[bytes], str, float] | None] = {}

    def around(self, path: str, line: int, more: int) -> Excerpt:
        """A line, and so many before and after it.

        :param path: absolute; of anything.
        """
        if path not in self._read:
            self._read[path] = _read(path)
        found = self._read[path]
        if found is None or not 1 <= line <= len(found[0]):
            return NOTHING
        lines, encoding, changed = found
        first = max(1, line - more)
        raw = lines[first - 1 : line + more]
        while len(raw) > line - first + 1 and not raw[-1].strip():
            raw.pop()
        while first < line and not raw[0].strip():
            first, raw = first + 1, raw[1:]
        return Excerpt(first, [_shown(each, encoding) for each in raw], changed)


def _read(path: str) -> tuple[list[bytes], str, float] | None:
    try:
        # Not blocked by a named pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):  # gone, or no name of a file
        return None
    try:
        status = os.fstat(descriptor)
        if status.st_mode & _TYPE_OF_FILE != _REGULAR or status.st_size > _LARGEST:
            return None
        pieces = []
        left = _LARGEST  # it may grow
        while left > 0:
            piece = os.read(descriptor, min(left, 1 << 16))
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    data = b"".join(pieces)
    if b"\0" in data:
        return None
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    lines = _LINE_END.split(data)
    coding = next(filter(None, map(_CODING.match, lines[:2])), None)
    encoding = coding[1].decode("ascii", "replace") if coding is not None else "utf-8"
    return lines, encoding, status.st_mtime


def showable(text: str) -> str:
    """The same without what moves a terminal's cursor, or can't be encoded."""
    return _UNSHOWABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _shown(line: bytes, encoding: str) -> str:
    try:
        text = line.decode(encoding, "replace")
    except Exception:  # noqa: BLE001 (no such encoding, or a codec that belongs to users)
        text = line.decode("utf-8", "replace")
    text = showable(text.expandtabs().rstrip(" "))
    return f"{text[:_WIDEST]}…" if len(text) > _WIDEST else text
