"""The keeper's event loop: messages of the worker and of hosts, and ends of child processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Callable, Iterator

from ...own import contextmanager, os, own_builtins, select, signal, suppress, time
from ...protocol.channels import Link
from ...protocol.descriptors import Files, move_up
from ...protocol.messages import Inspect, Message, Ping, Pong
from ..process.tree import is_alive
from .jobs import HostProcess, Job

own_builtins(globals())


class WorkerGoneError(Exception):
    """The worker died, or closed its end of the link."""


class MessageLostError(Exception):
    """A message of the worker is missing."""


class Loop(ABC):
    """Dispatches events one at a time.

    :param handle_order: called with each message of the worker that arrives while a test runs.
    :param controller: pid to poll on systems where its death is not signaled, or 0.
    """

    def __init__(
        self, link: Link, handle_order: Callable[[Message], None], controller: int
    ) -> None:
        self._link = link
        self._handle_order = handle_order
        self._controller = controller
        self.hosts: list[HostProcess] = []
        self.job: Job | None = None

    @abstractmethod
    def _handle_host(self, host: HostProcess, message: Message) -> None:
        """Handle a message of a host."""

    @abstractmethod
    def _host_message_lost(self, host: HostProcess) -> None:
        """Give up a host of which a message is missing: later ones can't be trusted."""

    @abstractmethod
    def _inspect(self) -> None:
        """Tell the worker what the running test does."""

    @abstractmethod
    def _reap(self) -> None:
        """Reap the children that have ended, one or more."""

    def _watch_children(self) -> None:
        self._sigchld_handler = signal.getsignal(signal.SIGCHLD)
        self._wakeup = _wake_on_child_exit()
        # A module may have blocked it, or whoever started pytest.
        self._blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
        # A test may send it to its parent. None: its handler is not Python's, and stays.
        self._sigint_handler = signal.getsignal(signal.SIGINT)
        if self._sigint_handler is not None:
            signal.signal(signal.SIGINT, lambda *_: None)

    def _unwatch_children(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, self._sigchld_handler)
        if self._sigint_handler is not None:
            signal.signal(signal.SIGINT, self._sigint_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)
        for descriptor in self._wakeup:
            os.close(descriptor)

    def poll(self, wait: float) -> None:
        """Wait for events, `wait` seconds at most, and handle them."""
        with _worker_gone_on_error():
            self._link.flush()
        poller = select.poll()
        poller.register(self._link.fileno(), select.POLLIN)
        poller.register(self._wakeup[0], select.POLLIN)
        for host in self.hosts:
            if not host.link.closed:
                poller.register(host.link.fileno(), select.POLLIN)
        ready = {descriptor for descriptor, _ in poller.poll(wait * 1000)}
        self._read_worker(ready)
        for host in list(self.hosts):
            if not host.link.closed and host.link.fileno() in ready:
                host.link.read()
            self._handle_messages_of(host)
            if host.link.closed and host.link.trouble and host.status is None:
                self._host_message_lost(host)
        if self._wakeup[0] in ready:
            with suppress(BlockingIOError):
                os.read(self._wakeup[0], 4096)
            self._reap()

    def poll_now(self) -> None:
        """Handle pending events without waiting, and orders of the worker even if no test runs."""
        self.poll(0.0)
        if self.job is None:
            for message in self._link.take_messages():
                self.handle(message)

    def _read_worker(self, ready: set[int]) -> None:
        if self._link.fileno() in ready and not self._link.read():
            raise MessageLostError if self._link.trouble else WorkerGoneError
        if self._controller and not is_alive(self._controller):
            raise WorkerGoneError
        if self.job is not None:
            for message in self._link.take_messages():
                self.handle(message)

    def handle(self, message: Message) -> None:
        """Answer a ping of the worker, or carry its order out."""
        if isinstance(message, Ping):
            self.send(Pong())
        elif isinstance(message, Inspect):
            self._inspect()
        else:
            self._handle_order(message)

    def _handle_messages_of(self, host: HostProcess) -> None:
        """Take messages one by one: a handler may poll, and so re-enter this loop."""
        message = host.link.take_message()
        while message is not None:
            self._handle_host(host, message)
            message = host.link.take_message()

    def until(self, condition: Callable[[], bool], limit: float) -> bool:
        """Poll until a condition holds, `limit` seconds at most; return whether it does."""
        deadline = time.monotonic() + limit
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.poll(min(left, 0.01))
        return True

    def send_to_host(self, host: HostProcess, message: Message) -> None:
        """Send a message to a host that may be dead."""
        with suppress(OSError):  # its death is noticed by its exit
            host.link.send(message)

    def send(self, message: Message) -> None:
        """Send a message to the worker.

        :raises WorkerGoneError: if it is gone.
        """
        with _worker_gone_on_error():
            self._link.send(message)

    def send_files(self, message: Message, files: Files) -> None:
        """Send a message to the worker, with the descriptors of these files.

        :raises WorkerGoneError: if it is gone.
        """
        with _worker_gone_on_error():
            self._link.send_files(message, files)


@contextmanager
def _worker_gone_on_error() -> Iterator[None]:
    """Turn an OSError within the block into WorkerGoneError."""
    try:
        yield
    except OSError as error:
        raise WorkerGoneError from error


def _wake_on_child_exit() -> tuple[int, int]:
    """Make SIGCHLD write to a new pipe; return its ends."""
    reader, writer = (move_up(end) for end in os.pipe())
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader, writer
