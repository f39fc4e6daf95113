"""Journals and traces as files: appended line by line, never overwritten while a run needs them."""

from __future__ import annotations

import errno
import itertools
import json
import shlex
import stat
from pathlib import Path
from typing import Callable, Iterator, Sequence

from ..named_tuple import NamedTuple
from ..own import fcntl, os, own_builtins
from ..protocol.descriptors import move_up, write_all
from ..system.limits import room
from .events import Event, encode
from .reader import JournalError, parse, whole_lines

own_builtins(globals())

RUN_LINE = encode({"event": "run"})[:-2]
"""What the line of a ``run`` event begins with."""

_END_LINE = encode({"event": "end"})[:-2]
_OPTIONS = ("--fkit-journal", "--fkit-resume")


class InUseError(Exception):
    """Another process writes the file."""


def _lock(descriptor: int, path: Path) -> None:
    """Lock a file until this process closes the first of its descriptors of it.

    :raises InUseError: if another process has locked it.
    """
    try:
        # Not flock(2), which forked processes would hold, too.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise InUseError(f"{path}: another run writes it") from None
        raise


class AppendedFile:
    """A file that only this process writes, without a buffer, which a fork would write twice."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.failure = ""
        """Why writing was given up, if it was."""

    @classmethod
    def open(cls, path: Path, keep: Callable[[bytes], int] = lambda _: 0) -> AppendedFile:
        """Open, or create, the file.

        :param keep: returns how many bytes of the present content to keep.
        :raises OSError: if it can't be opened.
        :raises InUseError: if another process has it open by this function.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with room():
            descriptor = move_up(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
        try:
            _lock(descriptor, path)
            state = os.fstat(descriptor)
            if stat.S_ISFIFO(state.st_mode) or stat.S_ISSOCK(state.st_mode):
                # If nobody reads it, the run would block.
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
        """Append `data`; after a failure, as on a full disk, write nothing any more."""
        if self.failure:
            return
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            self.failure = error.strerror or str(error)

    def close(self) -> None:
        os.close(self._descriptor)


class Content(NamedTuple):
    """What a file holds.

    :param keep: whether it must not be overwritten.
    :param run: the ``run`` event of its last run, if it is a journal and that run did not end.
    """

    keep: bool
    run: Event | None = None


class Aside(NamedTuple):
    """A file that was moved.

    :param run: see :class:`Content`.
    """

    path: Path
    run: Event | None


def set_aside(path: Path) -> Aside | None:
    """Move the file to ``PATH.1``, or the next free number, if it must not be overwritten.

    :return: None if it may be overwritten, or is not there.
    :raises InUseError: if another run writes it.
    """
    path = path.resolve()
    if not path.is_file():
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _lock(descriptor, path)
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            return None
        content = look_at(os.pread(descriptor, state.st_size, 0))
        if not content.keep:
            return None
        free = _reserve(path)
        path.replace(free)
    finally:
        os.close(descriptor)
    return Aside(free, content.run)


def _reserve(path: Path) -> Path:
    """Create the first ``PATH.N`` that does not exist, so that no other run takes that name."""
    for number in itertools.count(1):
        name = path.with_name(f"{path.name}.{number}")
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        except FileExistsError:
            continue
        return name
    raise AssertionError


def look_at(data: bytes) -> Content:
    """Whether to keep a file's content: a journal whose run did not end, or no journal at all."""
    whole = data[: whole_lines(data)]
    if not whole:  # empty, or the run was killed while it wrote its first line
        return Content(not RUN_LINE.startswith(data[: len(RUN_LINE)]))
    try:
        next(parse(whole[: whole.index(b"\n") + 1], ""))
    except JournalError:
        return Content(keep=True)
    begin = whole.rfind(b"\n" + RUN_LINE) + 1
    if whole.find(b"\n" + _END_LINE, begin) != -1:
        return Content(keep=False)
    run: Event = json.loads(whole[begin : whole.index(b"\n", begin)])
    return Content(keep=True, run=run)


def command_to_resume(arguments: Sequence[str], journal: str, *, elsewhere: bool) -> str:
    """The command that resumes a run.

    :param arguments: those with which it was started.
    :param journal: the path of its journal, as seen from where the command will be given.
    :param elsewhere: whether ``--fkit-journal`` also comes from ``addopts``; the last one counts.
    """
    kept = list(_without_journal(arguments))
    named = [f"--fkit-journal={journal}"] if elsewhere and kept == list(arguments) else []
    return " ".join(map(shlex.quote, ["pytest", *kept, *named, f"--fkit-resume={journal}"]))


def _without_journal(arguments: Sequence[str]) -> Iterator[str]:
    rest = iter(arguments)
    for each in rest:
        if each in _OPTIONS:
            next(rest, None)
        elif not each.startswith(tuple(f"{name}=" for name in _OPTIONS)):
            yield each
