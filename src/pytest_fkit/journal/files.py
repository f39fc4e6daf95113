"""Files that are written line by line as things happen, whole after every write."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import Callable

from ..own import fcntl, os, own_builtins
from ..protocol.descriptors import move_up, write_all
from ..system.limits import room

own_builtins(globals())


class InUseError(Exception):
    """Another process writes the file."""


def lock(descriptor: int, path: Path) -> None:
    """Have a file for this process alone, until it closes the first of its descriptors of it.

    :raises InUseError: if another process has it by this function.
    :raises OSError: if it can't be locked.
    """
    try:
        # Not flock(2), which forked processes would hold, too.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise InUseError(f"{path}: another run writes it") from None
        raise


class AppendedFile:
    """A file that only this process writes, without a buffer that a forked copy could write again.

    :param descriptor: of the file.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.failure = ""
        """Why nothing is written any more, if that is so."""

    @classmethod
    def open(cls, path: Path, keep: Callable[[bytes], int] = lambda _: 0) -> AppendedFile:
        """Open, or make, the file.

        :param keep: how many of the bytes that are there stay.
        :raises OSError: if that can't be.
        :raises InUseError: if another process has it open by this function.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with room():
            descriptor = move_up(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
        try:
            lock(descriptor, path)
            state = os.fstat(descriptor)
            if stat.S_ISFIFO(state.st_mode) or stat.S_ISSOCK(state.st_mode):
                # Nobody may be reading it, and the run would wait for that.
                raise OSError(errno.EINVAL, "a pipe, where a file is expected")
            if stat.S_ISREG(state.st_mode):
                size = state.st_size
                kept = keep(os.pread(descriptor, size, 0)) if size else 0
                os.ftruncate(descriptor, kept)
                os.lseek(descriptor, kept, os.SEEK_SET)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    def write(self, data: bytes) -> None:
        """Append `data`; where that fails, as on a full disk, write nothing from then on."""
        if self.failure:
            return
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            self.failure = error.strerror or str(error)

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)
