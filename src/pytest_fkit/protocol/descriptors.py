"""The files of test processes, at descriptor numbers where no test meets them."""

from __future__ import annotations

import errno
from typing import Iterator

from .. import system
from ..named_tuple import NamedTuple
from ..own import fcntl, os, own_builtins, resource, suppress
from ..system.limits import FSIZE, NOFILE, insist, room
from ..system.stack_texts import stack_text

own_builtins(globals())


class Files(NamedTuple):
    """What one test process writes: frames of messages, output, log, and faulthandler's dump.

    `fixture_out` and `fixture_err` are for what capsys, capfd and the like hold back: a test asks
    for it, and must not get what pytest captures for the report.

    Files, not pipes: nothing blocks on a reader, a dead process leaves all that it wrote, and a
    surviving grandchild that holds a copy holds up nobody.
    """

    events: int
    out: int
    err: int
    fixture_out: int
    fixture_err: int
    log: int
    dump: int

    @classmethod
    def create(cls) -> Files:
        """New empty files.

        :raises OSError: EMFILE, if the hard limit on open files does not allow them.
        """
        _check_room()
        descriptors: list[int] = []
        try:
            with room():
                for name in cls._fields:
                    descriptors.append(move_up(system.anonymous_file(name)))
                    # pytest truncates captured output; writers must not leave holes behind that.
                    fcntl.fcntl(descriptors[-1], fcntl.F_SETFL, os.O_APPEND)
        except OSError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        return cls(*descriptors)

    def renew(self) -> None:
        """Empty them for another process, once nobody writes to them any more.

        :raises OSError: as :meth:`create` does.
        """
        _check_room()
        for descriptor in self:
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)

    def install(self) -> None:
        """In a new process: put the files into their slots."""
        for slot, descriptor in enumerate(self, slots.events):
            insist(os.dup2, descriptor, slot, False)
            os.close(descriptor)
        slots.in_use = True

    def close(self) -> None:
        for descriptor in self:
            os.close(descriptor)


def _check_room() -> None:
    """Check that a test process may have its files in their slots.

    :raises OSError: EMFILE, if the hard limit on open files was lowered too far.
    """
    if resource.getrlimit(NOFILE)[1] < slots.end:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


_WISHED = 1024
_KEPT_FREE = 256
_AT_MOST = 96
"""Descriptors that the process with most of ours has: a keeper with its hosts."""


class Slots:
    """The descriptor numbers of a test process's files, the same in each test process.

    They are high, so that a test gets the numbers that it would get without us. Where the hard
    limit allows it, what closes 3 to 255, or all up to the customary soft limit, spares them. Not
    higher than that: the kernel copies the table up to the highest number at each fork.
    """

    events: int
    out: int
    err: int
    fixture_out: int
    fixture_err: int
    log: int
    dump: int

    def __init__(self) -> None:
        self.end = 0
        """The number after them."""
        self.in_use = False
        """Whether this process has its files there."""
        self.settle()

    def __iter__(self) -> Iterator[int]:
        """In the order of :class:`Files`."""
        return iter(range(self.events, self.end))

    def __contains__(self, descriptor: int) -> bool:
        return self.events <= descriptor < self.end

    def settle(self) -> None:
        """Choose them by the limits of now; before a process is forked for tests."""
        if self.in_use:  # in a test that runs pytest
            return
        _, hard = resource.getrlimit(NOFILE)
        if hard == resource.RLIM_INFINITY or hard >= _WISHED + _KEPT_FREE:
            self.begin_at(_free_from(_WISHED, _WISHED + _KEPT_FREE))
        else:
            self.begin_at(_free_from(max(hard - _AT_MOST, hard // 2), hard))

    def begin_at(self, number: int) -> None:
        """Have them from this number on, as another process has them."""
        for descriptor, name in enumerate(Files._fields, number):
            setattr(self, name, descriptor)
        self.end = number + len(Files._fields)


def _free_from(first: int, end: int) -> int:
    """The first number from which on enough of them are free; `first` if none is."""
    free = 0
    for number in range(first, end):
        free = 0 if _is_open(number) else free + 1
        if free == len(Files._fields):
            return number + 1 - free
    return first


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


slots = Slots()


def move_up(descriptor: int) -> int:
    """The same file at a number above the slots, closed on exec; `descriptor` is closed.

    Where the hard limit leaves no such number, or none is free, it may be one below.
    """
    try:
        high = insist(fcntl.fcntl, descriptor, fcntl.F_DUPFD_CLOEXEC, slots.end)
    except OSError:
        with room():
            return _beside_slots(descriptor)
    os.close(descriptor)
    return high


def _beside_slots(descriptor: int) -> int:
    """The same file, closed on exec, at any number that is no slot."""
    passed = []
    while descriptor in slots:
        passed.append(descriptor)
        descriptor = os.dup(descriptor)
    for each in passed:
        os.close(each)
    os.set_inheritable(descriptor, False)
    return descriptor


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data` to a file of ours, whatever soft limit on file sizes a test has set.

    :raises OSError: EFBIG where the test has lowered the hard limit as well.
    """
    # Asked for before: with a write that fails the kernel sends SIGXFSZ.
    if resource.getrlimit(FSIZE)[0] == resource.RLIM_INFINITY:
        write_unlimited(descriptor, data)
    else:
        with room(FSIZE):
            write_unlimited(descriptor, data)


def write_last_words(error: BaseException) -> None:
    """Write an error that ends this process where its standard error is kept.

    Not by sys.excepthook, which a suite may have replaced.
    """
    with suppress(BaseException):  # the end comes anyhow
        write_all(slots.err, f"{stack_text(error)}\n".encode("utf-8", "replace"))


def write_unlimited(descriptor: int, data: bytes) -> None:
    """Write all of `data` where no limit on file sizes applies, as to a pipe."""
    try:
        written = os.write(descriptor, data)
    except BlockingIOError:  # a test, or a fixture, has made all descriptors so
        os.set_blocking(descriptor, True)
        written = 0
    while written < len(data):  # a signal's handler was run in the middle
        written += os.write(descriptor, memoryview(data)[written:])


def read_from(descriptor: int, offset: int = 0) -> bytes:
    """What the file holds from `offset` on; the file position stays."""
    size = os.fstat(descriptor).st_size
    chunks: list[bytes] = []
    while offset < size:
        chunk = os.pread(descriptor, size - offset, offset)
        if not chunk:
            break
        chunks.append(chunk)
        offset += len(chunk)
    return b"".join(chunks)


def read_tail(descriptor: int, most: int) -> bytes:
    """The last bytes that the file holds, so many at most; the file position stays."""
    return os.pread(descriptor, most, max(0, os.fstat(descriptor).st_size - most))


class OwnFile:
    """The file in a slot, as long as the test leaves it there.

    A test may close every descriptor; a file of its own may then get the number.
    """

    def __init__(self, slot: int) -> None:
        self._slot = slot
        self.inode = -1
        """Set in each new process, whose files are installed."""

    def is_at(self, descriptor: int) -> bool:
        """Whether `descriptor` is this file."""
        try:
            return os.fstat(descriptor).st_ino == self.inode
        except OSError:
            return False

    def size(self) -> int | None:
        """Bytes that it holds; None if the test has closed it."""
        try:
            status = os.fstat(self._slot)
        except OSError:
            return None
        return status.st_size if status.st_ino == self.inode else None

    def write(self, data: bytes) -> None:
        if self.is_at(self._slot):
            try:
                write_all(self._slot, data)
            except OSError:  # full, or the hard limit: it is for a death only
                return

    def truncate(self) -> None:
        """Drop what was written."""
        try:
            if os.fstat(self._slot).st_ino == self.inode:
                os.ftruncate(self._slot, 0)
        except Exception:  # noqa: BLE001 (closed, or of an audit hook; it is for a death only)
            return
