"""Streams of messages between our processes: a socket to the keeper, pipes below it."""

from __future__ import annotations

from ..own import array, os, own_builtins, select, socket
from ..system.limits import MEMORY, NOFILE, insist, room
from .descriptors import Files, move_up, write_unlimited
from .messages import Message
from .wire import Packer, Unpacker

own_builtins(globals())


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
        """Read what has arrived, waiting for something; nothing at the end of the stream."""
        raise NotImplementedError

    def _put_out(self, data: bytes) -> None:
        """Write all of it.

        :raises OSError: if nobody is at the other end.
        """
        raise NotImplementedError

    @property
    def trouble(self) -> str:
        """What is wrong with what the other end said, "" if nothing is."""
        return self._unpacker.trouble

    # --- to the other end; what sends raises OSError if nobody is there ---

    def hold(self, message: Message) -> None:
        """Send a message with the next one, which follows soon: the other end is woken once."""
        self._held += self._packer.pack(message)

    def flush(self) -> None:
        """Send what is held."""
        if self._held:
            data, self._held = self._held, b""
            self._put_out(data)

    def send(self, message: Message) -> None:
        """Send one message."""
        data, self._held = self._held + self._packer.pack(message), b""
        self._put_out(data)

    # --- from the other end ---

    def is_readable(self, wait: float) -> bool:
        """Whether :meth:`read` would not wait, now or within `wait` seconds."""
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN)
        return bool(poller.poll(max(0.0, wait) * 1000))

    def has_message(self, wait: float) -> bool:
        """Whether there is something for :meth:`receive`, now or within `wait` seconds."""
        return bool(self._messages) or self.is_readable(wait)

    def is_over(self) -> bool:
        """Whether the other end is gone, and all that it said was taken."""
        return self.closed or (not self._messages and self.is_readable(0.0) and not self.read())

    def read(self) -> bool:
        """Take in what has arrived, waiting for something; False at the end of the stream."""
        data = self._take_in()
        self._messages += self._unpacker.feed(data)
        if not data or self._unpacker.broken:
            self.closed = True
            return False
        return True

    def receive(self) -> Message | None:
        """The next message; None at the end of the stream, which a reset counts as."""
        while not self._messages:
            if not self.read():
                return None
        return self._messages.pop(0)

    def take_message(self) -> Message | None:
        """The oldest of the messages taken in so far."""
        return self._messages.pop(0) if self._messages else None

    def take_messages(self) -> list[Message]:
        """The messages taken in so far."""
        messages, self._messages = self._messages, []
        return messages


class Link(_Stream):
    """Between a worker and its keeper: a socket, by which descriptors can be sent along.

    No test process has it open.
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
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end in this process."""
        self._socket.close()
        self.closed = True

    def send_files(self, message: Message, files: Files) -> None:
        """Send one message, and files with it."""
        self.flush()
        data = self._packer.pack(message)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))
        sent = self._socket.sendmsg([data], [rights])
        self._put_out(data[sent:])

    def _put_out(self, data: bytes) -> None:
        if data:
            self._socket.sendall(data)

    def _take_in(self) -> bytes:
        most = socket.CMSG_SPACE(len(Files._fields) * array.array("i").itemsize)
        try:
            with room(NOFILE, *MEMORY):  # with messages of a keeper there are descriptors
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
        number = len(Files._fields)
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
        write_unlimited(self.writer, data)

    def _take_in(self) -> bytes:
        try:
            return os.read(self.reader, 1 << 16)
        except BlockingIOError:  # a fixture has made all descriptors so
            os.set_blocking(self.reader, True)
            return os.read(self.reader, 1 << 16)
