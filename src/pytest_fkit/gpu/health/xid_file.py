"""The file by which the readers of Xids tell the processes of a run what they read.

Readers append lines of JSON: an Xid, that they are ready, or why there will be no more of theirs.
"""

from __future__ import annotations

import json

from ...own import os, own_builtins
from .xids import Xid, xid_of

own_builtins(globals())

_MOST = 32 << 20
"""Bytes; more than readers fill."""


class XidFile:
    """Reads what is new; costs one system call where nothing is.

    :param path: of the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0
        self._ready: set[str] = set()

    @property
    def is_told(self) -> bool:
        """Whether a reader is at work, as far as was read."""
        return bool(self._ready)

    def read(self) -> list[Xid]:
        """The Xids that were written down since the last time; none where it can't be read."""
        try:
            if os.stat(self._path).st_size <= self._offset:
                return []
            data = self._new()
        except OSError:  # who made it is gone
            self._ready.clear()
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [xid for line in whole.splitlines() for xid in self._take(line)]

    def _new(self) -> bytes:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, _MOST, self._offset)
        finally:
            os.close(descriptor)

    def _take(self, line: bytes) -> list[Xid]:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return []
        if not isinstance(said, dict):
            return []
        if "ready" in said:
            self._ready.add(str(said["ready"]))
        elif "ended" in said:
            self._ready.discard(str(said["ended"]))
        xid = xid_of(said)
        return [] if xid is None else [xid]
