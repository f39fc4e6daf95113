"""Cuts what tests write to the terminal into lines."""

from __future__ import annotations

import codecs
from typing import Callable

from ...own import own_builtins

own_builtins(globals())

LIVE = 0
"""The stream of live logs and ``--setup-show``, whose empty lines only set them off."""


class Lines:
    """Cuts text into lines.

    :param write: called with each whole line, without its end.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}
        self._rest: dict[int, str] = {}

    def feed(self, stream: int, data: bytes) -> None:
        """Add bytes of a stream: descriptor 1 or 2, or LIVE."""
        decoder = self._decoders.get(stream)
        if decoder is None:
            decoder = self._decoders[stream] = codecs.getincrementaldecoder("utf-8")("replace")
        self.feed_text(stream, decoder.decode(data))

    def feed_text(self, stream: int, text: str) -> None:
        """Add text of a stream."""
        *lines, self._rest[stream] = (self._rest.get(stream, "") + text).split("\n")
        for line in lines:
            if line or stream != LIVE:
                self._write(line)

    def flush(self) -> None:
        """At the end of a test: write lines that have no end yet."""
        for stream, rest in self._rest.items():
            if rest:
                self._write(rest)
                self._rest[stream] = ""


class Unchanged(Lines):
    """Passes text on as it comes: a single process has the terminal to itself."""

    def feed_text(self, stream: int, text: str) -> None:
        del stream
        self._write(text)
