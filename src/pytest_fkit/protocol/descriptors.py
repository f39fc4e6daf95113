"""Files and sockets of our own, at descriptor numbers where no test meets them."""

from __future__ import annotations

import errno
from typing import Iterator, NamedTuple

from .. import system
from ..own import array, fcntl, os, own_builtins, resource, select, socket
from ..system.limits import FSIZE, NOFILE, insist, room
from .messages import Message
from .wire import Packer, Unpacker

own_builtins(globals())

_NAMES = ("events", "out", "err", "fixture_out", "fixture_err", "log", "dump")

_WISHED = 1024
_KEPT_FREE = 256
_AT_MOST = 96
"""Descriptors that the process with most of ours has: a keeper with its hosts."""


class Slots:
    """Where every test process finds its files: the same numbers in each, see Files.install.

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

    def settle(self) -> None:
        """Decide where they are, by the limits of now; before a process is forked for tests."""
        if self.in_use:  # in a test that runs pytest
            return
        _, hard = resource.getrlimit(NOFILE)
        if hard == resource.RLIM_INFINITY or hard >= _WISHED + _KEPT_FREE:
            self.begin_at(_free_from(_WISHED, _WISHED + _KEPT_FREE))
        else:
            self.begin_at(_free_from(max(hard - _AT_MOST, hard // 2), hard))

    def begin_at(self, number: int) -> None:
        """Have them from this number on, as another process has them."""
        for descriptor, name in enumerate(_NAMES, number):
            setattr(self, name, descriptor)
        self.end = number + len(_NAMES)

    def __contains__(self, descriptor: int) -> bool:
        """Whether it is one of their numbers."""
        return self.events <= descriptor < self.end


def _free_from(first: int, end: int) -> int:
    """The first number from which on enough of them are free; `first` if none is."""
    free = 0
    for number in range(first, end):
        free = 0 if _is_open(number) else free + 1
        if free == len(_NAMES):
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
    """The same file at a high number, closed on exec; `descriptor` is closed.

    Where the hard limit leaves no high number, or none is free, it may be a low one.
    """
    try:
        high = insist(fcntl.fcntl, descriptor, fcntl.F_DUPFD_CLOEXEC, slots.end)
    except OSError:
        with room():
            return _beside_slots(descriptor)
    os.close(descriptor)
    return high


def _beside_slots(descriptor: int) -> int:
    """The same file, closed on exec, at a number that no test process needs for another."""
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
        _write_all(descriptor, data)
    else:
        with room(FSIZE):
            _write_all(descriptor, data)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # a signal's handler may have been run in the middle
        rest = rest[os.write(descriptor, rest) :]


def check_room() -> None:
    """See whether a test process may have its files in their slots.

    :raises OSError: EMFILE, if the hard limit on open files was lowered so far.
    """
    if resource.getrlimit(NOFILE)[1] < slots.end:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


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
        check_room()
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
        """Have them be as new ones are, for another process: nobody writes to them any more.

        :raises OSError: as :meth:`create` does.
        """
        check_room()
        for descriptor in self:
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)

    def install(self) -> None:
        """In a new process: put the files where its code expects them."""
        for descriptor, slot in zip(self, slots):
            insist(os.dup2, descriptor, slot, False)
            os.close(descriptor)
        slots.in_use = True

    def close(self) -> None:
        """Close all of them."""
        for descriptor in self:
            os.close(descriptor)


class OwnFile:
    """The file in a slot, as long as the test leaves it there.

    A test may close every descriptor; a file of its own may then get the number.
    """

    def __init__(self, slot: int) -> None:
        self._slot = slot
        self._inode = -1

    def enter_process(self) -> None:
        """In a new process, whose files are installed."""
        self._inode = os.fstat(self._slot).st_ino

    def write(self, data: bytes) -> None:
        """Append `data`."""
        if self.is_at(self._slot):
            try:
                write_all(self._slot, data)
            except OSError:  # full, or the hard limit: it is for a death only
                return

    def truncate(self) -> None:
        """Forget what was written."""
        if self.is_at(self._slot):
            try:
                os.ftruncate(self._slot, 0)
            except Exception:  # noqa: BLE001 (of an audit hook; it is for a death only)
                return

    def is_at(self, descriptor: int) -> bool:
        """Whether `descriptor` is this file."""
        try:
            return os.fstat(descriptor).st_ino == self._inode
        except OSError:
            return False


def read_from(descriptor: int, offset: int = 0) -> bytes:
    """What the file holds from `offset` on, the file position left alone."""
    size = os.fstat(descriptor).st_size
    chunks: list[bytes] = []
    while offset < size:
        chunk = os.pread(descriptor, size - offset, offset)
        if not chunk:
            break
        chunks.append(chunk)
        offset += len(chunk)
    return b"".join(chunks)


class _Stream:
    """One end of a stream of messages between two of our processes."""

    def __init__(self) -> None:
        self._packer = Packer()
        self._unpacker = Unpacker()
        self._messages: list[Message] = []
        self._held = b""
        self.closed = False

    def fileno(self) -> int:
        """The descriptor to read from, for poll(2); -1 if it is closed."""
        raise NotImplementedError

    def _take_in(self) -> bytes:
        """What has arrived, waiting for something; nothing at the end of the stream."""
        raise NotImplementedError

    def _put_out(self, data: bytes) -> None:
        """Write all of it.

        :raises OSError: if nobody is at the other end.
        """
        raise NotImplementedError

    def is_readable(self, wait: float) -> bool:
        """Whether :meth:`read` would not wait, now or within `wait` seconds."""
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN)
        return bool(poller.poll(max(0.0, wait) * 1000))

    def has_message(self, wait: float) -> bool:
        """Whether there is something for :meth:`receive`, now or within `wait` seconds."""
        return bool(self._messages) or self.is_readable(wait)

    def is_over(self) -> bool:
        """Whether the other end is gone, and said nothing that was not taken."""
        return self.closed or (not self._messages and self.is_readable(0.0) and not self.read())

    def hold(self, message: Message) -> None:
        """Send a message with the next one, which follows soon: the other end is woken once."""
        self._held += self._packer.pack(message)

    def flush(self) -> None:
        """Send what is held.

        :raises OSError: if nobody is at the other end.
        """
        if self._held:
            data, self._held = self._held, b""
            self._put_out(data)

    def send(self, message: Message) -> None:
        """Send one message.

        :raises OSError: if nobody is at the other end.
        """
        data, self._held = self._held + self._packer.pack(message), b""
        self._put_out(data)

    def receive(self) -> Message | None:
        """The next message; None at the end of the stream, which a reset counts as."""
        while not self._messages:
            if not self.read():
                return None
        return self._messages.pop(0)

    def read(self) -> bool:
        """Take in what has arrived, waiting for something; False at the end of the stream."""
        data = self._take_in()
        self._messages += self._unpacker.feed(data)
        if not data or self._unpacker.broken:
            self.closed = True
            return False
        return True

    @property
    def trouble(self) -> str:
        """What is wrong with what the other end said, "" if nothing is."""
        return self._unpacker.trouble

    def take_message(self) -> Message | None:
        """The oldest of the messages taken in so far."""
        return self._messages.pop(0) if self._messages else None

    def take_messages(self) -> list[Message]:
        """The messages taken in so far."""
        messages, self._messages = self._messages, []
        return messages


class Link(_Stream):
    """Between a worker and its keeper: descriptors can be sent along.

    It is a socket, which no test process has open.
    """

    def __init__(self, end: socket.socket) -> None:
        super().__init__()
        self._socket = end
        self._descriptors: list[int] = []

    @classmethod
    def pair(cls) -> tuple[Link, Link]:
        """Two connected ends."""
        with room():
            ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            first, second = (socket.socket(fileno=move_up(end.detach())) for end in ends)
        return cls(first), cls(second)

    def fileno(self) -> int:
        """See above."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end in this process."""
        self._socket.close()
        self.closed = True

    def send_files(self, message: Message, files: Files) -> None:
        """Send one message, and files with it.

        :raises OSError: if nobody is at the other end.
        """
        self.flush()
        data = self._packer.pack(message)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))
        sent = self._socket.sendmsg([data], [rights])
        self._put_out(data[sent:])

    def _put_out(self, data: bytes) -> None:
        if data:
            self._socket.sendall(data)

    def _take_in(self) -> bytes:
        most = socket.CMSG_SPACE(len(_NAMES) * array.array("i").itemsize)
        try:
            with room():  # with messages of a keeper there are descriptors
                data, ancillary, _, _ = self._socket.recvmsg(1 << 18, most)
        except ConnectionResetError:
            return b""
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                self._descriptors += [move_up(descriptor) for descriptor in received]
        return data

    def take_files(self) -> Files | None:
        """The descriptors that came with the oldest message whose files were not taken yet.

        None if not all came: the kernel leaves out those for which a limit leaves no room.
        """
        number = len(_NAMES)
        files, self._descriptors = self._descriptors[:number], self._descriptors[number:]
        if len(files) == number:
            return Files(*files)
        for descriptor in files:
            os.close(descriptor)
        return None


class Pipes(_Stream):
    """Between a keeper and a host, or a host and its child: two pipes, one for each direction.

    Not a socket: tests look for connections that others left open, and where a test is there may
    be one end.
    """

    def __init__(self, reader: int, writer: int) -> None:
        super().__init__()
        self.reader = reader
        self.writer = writer

    @classmethod
    def pair(cls) -> tuple[Pipes, Pipes]:
        """Two connected ends."""
        one, other = map(move_up, insist(os.pipe))
        try:
            third, fourth = map(move_up, insist(os.pipe))
        except OSError:
            os.close(one)
            os.close(other)
            raise
        return cls(one, fourth), cls(third, other)

    def fileno(self) -> int:
        """See above."""
        return self.reader

    def close(self) -> None:
        """Close this end in this process."""
        self.stop_reading()
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1
        self.closed = True

    def stop_reading(self) -> None:
        """Close the half that messages come by."""
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1

    def _put_out(self, data: bytes) -> None:
        _write_all(self.writer, data)

    def _take_in(self) -> bytes:
        return os.read(self.reader, 1 << 16)
