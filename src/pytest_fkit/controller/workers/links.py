"""The connections to workers: orders, what workers say, and the end of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable

from ... import system
from ...own import mmap, os, own_builtins, threading, time
from ...protocol.border import (
    Alive,
    CollectionGpuErrors,
    DescribeRunning,
    Distrusts,
    EndNow,
    Facts,
    Holds,
    LeftOut,
    Line,
    NothingRuns,
    OfItself,
    OfTests,
    Order,
    Outbox,
    Probed,
    Returned,
    RunningItem,
    SlowItem,
    Stopped,
    StopRun,
    Waits,
    answers,
)
from ...protocol.whereabouts import Whereabouts
from ...protocol.wire import Unpacker
from ..schedule.machines import machine_of
from .liveness import Heartbeat, kill

if TYPE_CHECKING:
    from execnet import Channel
    from xdist.workermanage import WorkerController

own_builtins(globals())

END_WAIT = 2.0
"""Seconds that workers get to end after they were told to end at once."""


@dataclass
class _Link:
    """The connection to a worker.

    :param gone: set when nothing will come any more.
    :param whereabouts: the memory in which it notes the test that it runs, None if it can't.
    :param descriptor: of that memory, -1 when the worker has opened it.
    """

    outbox: Outbox
    unpacker: Unpacker = field(default_factory=answers)
    gone: threading.Event = field(default_factory=threading.Event)
    whereabouts: Whereabouts | None = None
    descriptor: int = -1

    def share_whereabouts(self) -> str:
        """Make the memory that a worker on this machine shares; its path, "" if that fails."""
        try:
            descriptor = system.anonymous_file("whereabouts")
        except OSError:
            return ""
        try:
            os.ftruncate(descriptor, mmap.PAGESIZE)
            self.whereabouts = Whereabouts(descriptor)
            self.whereabouts.clear()
        except OSError:
            os.close(descriptor)
            return ""
        self.descriptor = descriptor
        return f"/proc/{os.getpid()}/fd/{descriptor}"

    def close_descriptor(self) -> None:
        """Close the descriptor of the memory, which nobody is going to open any more."""
        if self.descriptor != -1:
            os.close(self.descriptor)
            self.descriptor = -1


class Links:
    """All connections of a run, with the workers that are killed because they can't be trusted.

    :param of_tests: called with a worker and what it tells of tests, in execnet's threads.
    :param of_itself: the same for what the worker says of itself to the schedule.
    :param show: writes a line to the terminal; called in any thread.
    :param of_running: the same for what it says of the test that it runs.
    :param timeout: seconds after which a worker that does not answer is killed, 0 for none.
    :param start: further seconds for the start of a worker elsewhere, and its imports; 0 for any
        time.
    """

    def __init__(
        self,
        of_tests: Callable[[WorkerController, list[OfTests]], None],
        of_itself: Callable[[WorkerController, OfItself], None],
        show: Callable[[str], None],
        timeout: float,
        of_running: Callable[[WorkerController, Any], None],
        start: float,
    ) -> None:
        self._of_tests = of_tests
        self.show = show
        self._start = start
        self.heartbeat = Heartbeat(timeout, self)
        self._links: dict[WorkerController, _Link] = {}
        self._up: set[WorkerController] = set()
        self._starting: set[WorkerController] = set()
        self.facts: dict[WorkerController, Facts] = {}
        """What workers said of what they collected."""
        self.left_out: dict[WorkerController, LeftOut] = {}
        """What they left out of that."""
        self.in_doubt: set[WorkerController] = set()
        """Workers that met GPU errors while they collected."""
        self._killed: dict[WorkerController, str] = {}
        self._distrusted: set[WorkerController] = set()
        self._handlers: dict[type[object], Callable[[WorkerController, Any], None]] = {
            Stopped: lambda node, _: self._links[node].gone.set(),
            Alive: lambda *_: None,
            Line: lambda node, line: show(f"[{node.gateway.id}] {line.text}"),
            Distrusts: self._is_distrusted,
            Facts: self.facts.__setitem__,
            LeftOut: self.left_out.__setitem__,
            CollectionGpuErrors: self._doubt,
            **dict.fromkeys((Waits, Returned, Probed, Holds), of_itself),
            **dict.fromkeys((SlowItem, RunningItem, NothingRuns), of_running),
        }

    def open(self, node: WorkerController, local: bool) -> tuple[Channel, str]:
        """Open a channel to a new worker; it, and the path of the memory for its whereabouts."""
        channel = node.gateway.newchannel()
        link = self._links[node] = _Link(Outbox(channel.send))
        self._up.add(node)
        return channel, link.share_whereabouts() if local else ""

    def listen(self, node: WorkerController, channel: Channel) -> None:
        """From now on handle what the worker says."""
        channel.setcallback(lambda data: self._hear(node, data), endmarker=None)
        if machine_of(node):
            self._starting.add(node)
            self.heartbeat.add(node, self._start, asked=False)

    def is_up(self, node: WorkerController) -> None:
        """A worker is about to collect."""
        self._starting.discard(node)
        if machine_of(node):
            self.heartbeat.add(node, self._start)

    def ask_what_runs(self) -> list[str]:
        nodes = list(self._up)
        for node in nodes:
            self.order(node, DescribeRunning())
        return [node.gateway.id for node in nodes]

    def has_collected(self, node: WorkerController) -> None:
        self._links[node].close_descriptor()
        self.heartbeat.add(node)

    def down(self, node: WorkerController) -> None:
        self._links[node].gone.set()
        self._links[node].close_descriptor()
        self.heartbeat.remove(node)
        self._up.discard(node)
        self._starting.discard(node)

    def order(self, node: WorkerController, order: Order) -> None:
        """Send a worker a message, if it is up."""
        if node not in self._up:
            return
        try:
            self._links[node].outbox.send(order)
        except OSError:  # it is gone
            self._links[node].gone.set()

    def whereabouts(self, node: WorkerController) -> Whereabouts | None:
        """Where a worker notes the test that it runs, None if it does not."""
        link = self._links.get(node)
        return None if link is None else link.whereabouts

    def at(self, node: WorkerController) -> int | None:
        """The position that a dead worker has noted, None if it has not."""
        whereabouts = self.whereabouts(node)
        # What a worker ran that was killed for what it said has nothing to do with that.
        return None if whereabouts is None or node in self._distrusted else whereabouts.at

    # --- in execnet's receiver threads ---

    def _hear(self, node: WorkerController, data: bytes | None) -> None:
        link = self._links[node]
        if data is None:
            link.gone.set()
            return
        self.heartbeat.heard(node)
        told: list[OfTests] = []
        for message in link.unpacker.feed(data):
            handler = self._handlers.get(type(message))
            if handler is None:
                told.append(message)
                continue
            if told:
                self._of_tests(node, told)
            told = []
            handler(node, message)
        if told:
            self._of_tests(node, told)
        if link.unpacker.broken:
            self.distrust(node, link.unpacker.trouble)

    def _doubt(self, node: WorkerController, message: CollectionGpuErrors) -> None:
        del message
        self.in_doubt.add(node)

    # --- workers that can't be trusted, or don't answer; in any thread ---

    def trouble(self, node: WorkerController) -> str:
        """What is wrong with what a worker sends, "" if nothing is."""
        return self._links[node].unpacker.trouble

    def distrust(self, node: WorkerController, trouble: str) -> None:
        self._kill(node, _with_sender(trouble, f"worker {node.gateway.id}"))

    def _is_distrusted(self, node: WorkerController, message: Distrusts) -> None:
        self._kill(node, _with_sender(message.trouble, "the controller"))

    def _kill(self, node: WorkerController, reason: str) -> None:
        if node in self._killed:
            return
        self._killed[node] = reason
        self._distrusted.add(node)
        self.show(f"fkit: {node.gateway.id} is killed: {reason}")
        kill(node)

    def silent(self, node: WorkerController, limit: float) -> None:
        text = f"not answered for {limit:g} s"
        self._killed[node] = f"it had {text}"
        self.show(f"fkit: {node.gateway.id} has {text}, and is killed")
        kill(node)

    def why_killed(self, node: WorkerController) -> str:
        """Why we killed a worker, "" if we did not."""
        return self._killed.get(node, "")

    # --- the end ---

    def stop_workers(
        self,
        grace: float,
        handle: Callable[[], None],
        show: Callable[[str], None],
        drain: float,
    ) -> None:
        """Have workers interrupt their tests and tear down, within the grace.

        :param handle: handles what they say meanwhile.
        :param show: writes a line to the terminal, now.
        :param drain: seconds of the grace in which tests may end by themselves.
        """
        # One that starts elsewhere hears neither of this nor of Ctrl-C, and has set up nothing.
        for node in self._starting & self._up:
            kill(node)
        living = [node for node in self._links if node in self._up - self._starting]
        if not living:
            return
        try:
            for node in living:
                node.shutdown()
                self.order(node, StopRun(drain))
            self._wait(living, grace + END_WAIT, handle)
        except KeyboardInterrupt:
            show("pytest-fkit: interrupted again, ending everything")
        for node in living:
            if not self._links[node].gone.is_set():
                self.order(node, EndNow())
        self._wait(living, END_WAIT, handle)

    def _wait(
        self, nodes: list[WorkerController], limit: float, handle: Callable[[], None]
    ) -> None:
        end = time.monotonic() + (threading.TIMEOUT_MAX if limit == float("inf") else limit)
        for node in nodes:
            gone = self._links[node].gone
            # In slices: on some platforms a signal does not wake a wait for a lock.
            while not gone.wait(min(0.2, max(0.0, end - time.monotonic()))):
                if time.monotonic() >= end:
                    break
                handle()
                # A worker that was interrupted before it knew of us closes xdist's channel only.
                if node.channel.isclosed():
                    gone.set()


def _with_sender(trouble: str, sender: str) -> str:
    """As in "message 7 from worker gw0 is missing"."""
    return trouble.replace(" is ", f" from {sender} is ", 1)
