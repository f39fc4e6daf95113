"""What the keeper waits for: words of its worker and its hosts, and the end of its children."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Callable, Iterator

from ...own import contextmanager, os, own_builtins, select, signal, suppress, time
from ...protocol.channels import Link
from ...protocol.descriptors import Files, move_up
from ...protocol.messages import Message, Ping, Pong
from ..process.tree import is_alive
from .jobs import HostProcess, Job

own_builtins(globals())


class WorkerGoneError(Exception):
    """The worker died or let go of us."""


class DeafError(Exception):
    """Something that the worker said is missing."""


class Loop(ABC):
    """Takes in what happens, one thing at a time.

    :param link: to the worker.
    :param obey: called with what the worker says while a test runs.
    :param controller: pid to watch where the kernel does not tell of its death, or 0.
    """

    def __init__(self, link: Link, obey: Callable[[Message], None], controller: int) -> None:
        self._link = link
        self._obey = obey
        self._controller = controller
        self.hosts: list[HostProcess] = []
        self.job: Job | None = None

    @abstractmethod
    def _heard(self, host: HostProcess, message: Message) -> None:
        """A host said something."""

    @abstractmethod
    def _distrust(self, host: HostProcess) -> None:
        """Something that a host said is missing: what it says later can't be believed."""

    @abstractmethod
    def _reap(self) -> None:
        """A child has ended, or several."""

    def _begin_to_wait(self) -> None:
        self._sigchld_handler = signal.getsignal(signal.SIGCHLD)
        self._wakeup = _wake_on_child_exit()

    def _wait_no_more(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, self._sigchld_handler)
        for descriptor in self._wakeup:
            os.close(descriptor)

    def poll(self, wait: float) -> None:
        """Wait for something to happen, `wait` seconds at most, and take it in."""
        with _worker_there():
            self._link.flush()
        poller = select.poll()
        poller.register(self._link.fileno(), select.POLLIN)
        poller.register(self._wakeup[0], select.POLLIN)
        for host in self.hosts:
            if not host.link.closed:
                poller.register(host.link.fileno(), select.POLLIN)
        ready = {descriptor for descriptor, _ in poller.poll(wait * 1000)}
        self._hear_worker(ready)
        for host in list(self.hosts):
            if not host.link.closed and host.link.fileno() in ready:
                host.link.read()
            self._hear(host)
            if host.link.closed and host.link.trouble and host.status is None:
                self._distrust(host)
        if self._wakeup[0] in ready:
            with suppress(BlockingIOError):
                os.read(self._wakeup[0], 4096)
            self._reap()

    def attend(self) -> None:
        """Take in what has happened, and do what the worker says, also where no test runs."""
        self.poll(0.0)
        if self.job is None:
            for message in self._link.take_messages():
                self.obey(message)

    def _hear_worker(self, ready: set[int]) -> None:
        if self._link.fileno() in ready and not self._link.read():
            raise DeafError if self._link.trouble else WorkerGoneError
        if self._controller and not is_alive(self._controller):
            raise WorkerGoneError
        if self.job is not None:
            for message in self._link.take_messages():
                self.obey(message)

    def obey(self, message: Message) -> None:
        """Do what the worker says."""
        if isinstance(message, Ping):
            self.send(Pong())
        else:
            self._obey(message)

    def _hear(self, host: HostProcess) -> None:
        """Handle messages one by one: a handler may wait, and re-enter this loop meanwhile."""
        message = host.link.take_message()
        while message is not None:
            self._heard(host, message)
            message = host.link.take_message()

    def until(self, true: Callable[[], bool], limit: float) -> bool:
        """Wait until something is true, `limit` seconds at most; whether it is."""
        deadline = time.monotonic() + limit
        while not true():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.poll(min(left, 0.01))
        return True

    def tell(self, host: HostProcess, message: Message) -> None:
        """Send a message to a host, which may be dead: its exit tells."""
        with suppress(OSError):  # it is dead; its exit tells
            host.link.send(message)

    def send(self, message: Message) -> None:
        """Send a message to the worker.

        :raises WorkerGoneError: if it is gone.
        """
        with _worker_there():
            self._link.send(message)

    def send_files(self, message: Message, files: Files) -> None:
        """The same, with files."""
        with _worker_there():
            self._link.send_files(message, files)


@contextmanager
def _worker_there() -> Iterator[None]:
    """:raises WorkerGoneError: where the block raises OSError."""
    try:
        yield
    except OSError as error:
        raise WorkerGoneError from error


def _wake_on_child_exit() -> tuple[int, int]:
    """A pipe that becomes readable when a child ends."""
    reader, writer = (move_up(end) for end in os.pipe())
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader, writer
