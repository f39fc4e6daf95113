"""The worker's connection to its keeper: orders out, messages and an ending in."""

from __future__ import annotations

from typing import Any, Callable, Generator, Iterator

import pytest

from .. import system
from ..own import os, own_builtins, select, signal, suppress, threading, time
from ..protocol.channels import Link
from ..protocol.descriptors import Files, read_from, slots
from ..protocol.endings import Exited, Lost, from_wait_status
from ..protocol.messages import (
    PATIENCE,
    Broken,
    Ended,
    Events,
    Finish,
    Follows,
    HostFiles,
    Inspect,
    Message,
    OrderAnew,
    Ping,
    Pong,
    Run,
    RunTogether,
    Stop,
    TornDown,
)
from ..protocol.process_keys import OWN, ProcessKey
from ..protocol.wire import Sorter, following
from ..sandbox.keeper.jobs import end_in_words
from ..sandbox.process.copies import Statuses
from ..sandbox.process.coverage import running_coverage
from ..sandbox.process.excerpts import read_ends
from ..sandbox.process.output import flush
from ..sandbox.process.relay import DEAF
from ..sandbox.process.steps import Fork, Role
from ..sandbox.process.test_process import GPU_MEMORY
from ..sandbox.process.tree import KILL_WAIT, kill_tree, send_signal
from ..sandbox.startup import keeper_role
from ..system.limits import refusal
from ..system.pages import COLLAPSE_PAYS_FROM, collapse

own_builtins(globals())

SILENCE = 60.0
"""Seconds after which a silent keeper is given up: it is stopped, or hangs in the kernel."""


class KeeperClient:
    """Forks a keeper when one is needed, and another when that has died.

    :param descriptors: of the worker's connection to the controller.
    :param controller: pid of the controller, 0 if it is on another machine.
    :param forks: about how many processes each keeper will have forked below it.
    """

    def __init__(
        self, session: pytest.Session, descriptors: list[int], controller: int, forks: int
    ) -> None:
        self._session = session
        self._descriptors = descriptors
        self._controller = controller
        self._forks = forks
        self._link: Link | None = None
        self._fresh = False  # whether the keeper has had no order yet
        self._refused: OSError | None = None
        self._pid = 0
        self._broken: list[Broken] = []
        self._hosts: dict[ProcessKey, tuple[int, Files]] = {}
        self._following: dict[int, int] = {}  # number of the next frame of such a host, by pid
        self._ahead: Run | RunTogether | None = None
        memory = session.config.stash.get(GPU_MEMORY, None)
        self._memory_wait = 0.0 if memory is None else memory.longest
        self._lock = threading.Lock()
        self._grace: float | None = None
        self._drain = 0.0
        self.coverage: Any | None = None
        """Coverage.py's object, if it counts and test processes can too."""
        self._look_at = 0.0
        self.look: Callable[[], None] = lambda: None
        """Called about once a second by the thread that waits for a test."""
        self.at_start: Callable[[], object] = lambda: None
        """Called in a new keeper, before anything else."""

    def start(self) -> Generator[Fork, int, None]:
        """Make sure of a living keeper, before tests are run.

        Where the kernel refuses to fork one, the next :meth:`run` reports it.
        """
        if self._link is not None and self._ahead is None and self._link.is_over():
            self._bury()
        if self._link is not None:
            return
        # If the keeper dies, we adopt the processes below it, and have to end them.
        system.become_subreaper()
        self.coverage = running_coverage()
        if self._forks >= COLLAPSE_PAYS_FROM:
            collapse()  # here: this process and all below it have these pages in common
        flush()
        slots.settle()
        try:
            ours, theirs = Link.pair()
        except OSError as error:
            self._refused = error
            return
        try:
            self._pid = yield Fork(self._begin(ours, theirs))
        except OSError as error:
            ours.close()
            self._refused = error
            return
        finally:
            theirs.close()
        self._link, self._fresh = ours, True
        for message in self._broken:
            ours.send(message)

    def _begin(self, ours: Link, theirs: Link) -> Role:
        """The role of a new keeper, which first drops what belongs to the worker."""
        os.close(ours.fileno())
        self.at_start()
        return (
            yield from keeper_role(
                self._session, theirs, self._descriptors, self._controller, self.coverage
            )
        )

    def run(
        self, order: Run | RunTogether, ahead: Run | RunTogether | None = None
    ) -> Iterator[Message]:
        """Run tests; the last message is the :class:`Ended` of the last one, whatever happens.

        Comes after :meth:`start`.

        :param ahead: the order to execute next, begun at once, but only if this order ends well.
            The next call has to be for it, unless the run ends here.
        """
        flush()
        host = order.key if isinstance(order, Run) else order.run.key
        link = self._link
        if link is None:
            assert self._refused is not None
            why = refusal(self._refused)
            yield Ended(Lost(f"no process could be made for it: {why}"))
            return
        fresh, self._fresh = self._fresh, False
        yield from self._answers(host, link, lambda: self._order(link, order, ahead, fresh))

    def follow(self, order: Follows) -> Iterator[Message]:
        """Say which test follows the last one; the last message is the :class:`Ended` of teardowns.

        Nothing is yielded where there is no keeper.
        """
        link = self._link
        if link is not None:
            yield from self._answers(OWN, link, lambda: self._send(link, order), "teardown")

    def _answers(
        self, host: ProcessKey, link: Link, order: Callable[[], None], wide: str = ""
    ) -> Iterator[Message]:
        """Give an order; the answers, up to an Ended.

        :param wide: as in :class:`Ended`, if the keeper dies.
        """
        try:
            order()
            while True:
                message = self._hear(link)
                if message is None:
                    break
                if isinstance(message, Pong):
                    continue
                if isinstance(message, HostFiles):
                    self._remember_host(message, link.take_files())
                    continue
                if isinstance(message, Events) and message.pid in self._following:
                    self._following[message.pid] = following(message.frames)
                elif isinstance(message, Ended) and not message.goes_on:
                    self._ahead = None
                    with suppress(OSError):  # it has died since
                        self._send(link, OrderAnew())
                yield message
                if isinstance(message, Ended):
                    return
        except (BrokenPipeError, ConnectionResetError):
            pass
        how = f"its keeper process {self._bury()}"
        how += "" if wide else " while the test was running"
        lost = Lost(f"{link.trouble} of what its keeper process said" if link.trouble else how)
        left = self._what_was_left(host, lost, wide)
        self._forget_hosts()
        yield from left

    def _hear(self, link: Link, deadline: float | None = None) -> Message | None:
        """The next message; None at the end of the stream, or at the deadline.

        A silent keeper is pinged. Its answer also shows whether a message before it was lost.

        Count missed pings, not seconds: while this process is suspended, as by Ctrl-Z, it hears
        nothing.
        """
        missed = 0
        while not link.closed:
            message = link.take_message()
            now = time.monotonic()
            if now >= self._look_at:
                self._look_at = now + PATIENCE / 2
                self.look()
            if message is not None:
                return message
            if link.is_readable(PATIENCE):
                missed = 0
                link.read()
            elif missed * PATIENCE >= SILENCE or now > (deadline or now):
                return None
            else:
                missed += 1
                self._send(link, Ping())
        return None

    def _order(
        self,
        link: Link,
        order: Run | RunTogether,
        ahead: Run | RunTogether | None,
        fresh: bool,
    ) -> None:
        with self._lock:
            if fresh and self._grace is not None:
                # The order to stop came while there was no keeper.
                link.send(Stop(self._grace, self._drain))
            if self._ahead is None:
                link.send(order)
            else:
                assert self._ahead == order
            self._ahead = ahead
            if ahead is not None:
                link.send(ahead)

    def _send(self, link: Link, message: Message) -> None:
        with self._lock:
            link.send(message)

    def inspect(self) -> None:
        """Have the keeper look at the running test; the thread that waits gets the answer."""
        if self._link is not None:
            self._send(self._link, Inspect())

    def _what_was_left(self, host: ProcessKey, lost: Lost, wide: str) -> list[Message]:
        """What a host that ran tests itself reported, and a dead keeper did not pass on."""
        if host not in self._hosts:
            return [Ended(lost, wide=wide)]
        pid, files = self._hosts[host]
        sorter = Sorter(self._following[pid])
        events = Events(b"".join(sorter.feed(read_from(files.events))), pid)
        if sorter.trouble:
            lost = Lost(f"{sorter.trouble} of what its process reported")
        ended = Ended(
            lost, pid, out=read_ends(files.out), err=read_ends(files.err),
            log=read_ends(files.log), dump=read_ends(files.dump),
        )  # fmt: skip
        return [events, ended]

    def _remember_host(self, host: HostFiles, files: Files | None) -> None:
        self._forget_host(host.key)
        if files is not None:  # else its reports are lost if the keeper dies
            self._hosts[host.key] = host.pid, files
            self._following[host.pid] = 0

    def _forget_hosts(self) -> None:
        for host in list(self._hosts):
            self._forget_host(host)

    def _forget_host(self, host: ProcessKey) -> None:
        if host in self._hosts:
            pid, files = self._hosts.pop(host)
            del self._following[pid]
            files.close()

    def remember_broken(self, message: Broken) -> None:
        """Prevent a wide fixture from being set up again, by this keeper and those after it."""
        self._broken.append(message)
        if self._link is not None:
            with suppress(OSError):  # it has died since; the next keeper is told
                self._send(self._link, message)

    def finish(self, timeout: float) -> Iterator[Message]:
        """Tear everything down and end the keeper; the last message is a :class:`TornDown`.

        Nothing is yielded where there is no keeper.
        """
        if self._link is not None:
            if self._grace is None:
                yield from self._torn_down(Finish(timeout), timeout or None)
            else:  # request_stop() has sent the order
                yield from self._torn_down(None, self._grace)

    def request_stop(self, grace: float, drain: float = 0.0) -> None:
        """End the running test and tear everything down; called in any thread.

        The thread that waits for messages gets those.

        :param drain: see :class:`Stop`.
        """
        with self._lock:
            self._grace, self._drain = grace, drain
            if self._link is not None:
                with suppress(OSError):  # it is dead, as the waiting thread will notice
                    self._link.send(Stop(grace, drain))

    def stop(self, grace: float) -> Iterator[Message]:
        """Interrupt the running test and tear down, within `grace` seconds."""
        if self._link is not None:
            yield from self._torn_down(Stop(grace), grace)

    def _torn_down(self, command: Message | None, limit: float | None) -> Iterator[Message]:
        assert self._link is not None
        link = self._link
        # The keeper enforces the limit for each host; this deadline is for a keeper that hangs.
        deadline = None
        if limit is not None:
            deadline = time.monotonic() + 2 * limit + 4 * KILL_WAIT + self._memory_wait
        try:
            if command is not None:
                self._send(link, command)
            while True:
                message = self._hear(link, deadline)
                if message is None:
                    break
                yield message
                if isinstance(message, TornDown):
                    self.close()
                    return
        except (BrokenPipeError, ConnectionResetError):
            pass
        yield TornDown(Ended(Lost(f"the keeper process {self._bury()}"), wide="teardown"))

    def close(self) -> None:
        """Close the connection, at which the keeper ends all processes below it, and itself."""
        self._forget_hosts()
        if self._link is not None:
            with Statuses():
                self._link.close()
                self._link = None
                _wait(self._pid, KILL_WAIT * 2)

    def _bury(self) -> str:
        """End the processes that a dead keeper left; returns how it died."""
        assert self._link is not None
        self._link.close()
        self._link = None
        self._ahead = None
        with Statuses():
            how = _wait(self._pid, KILL_WAIT)
            deadline = time.monotonic() + KILL_WAIT
            orphans = self._orphans()
            while orphans and time.monotonic() < deadline:
                for pid in orphans:
                    kill_tree(pid)
                    _wait(pid, deadline - time.monotonic())
                orphans = self._orphans()
        return how

    def _orphans(self) -> list[int]:
        # Processes that plugins and conftest files started stay: their session is the worker's.
        return [pid for pid in system.adopted_children({self._pid}) if not _started_here(pid)]


def _started_here(pid: int) -> bool:
    """Whether the process is in the worker's session, as those are that plugins start."""
    try:
        return os.getsid(pid) == os.getsid(0)
    except OSError:
        return False


def _wait(pid: int, limit: float) -> str:
    """Wait for a process to end, SIGKILL it if it does not; how it ended."""
    deadline, killed = time.monotonic() + limit, False
    pause = 0.0005
    while True:
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return "is gone"
        if found:
            deaf = from_wait_status(status) == Exited(DEAF)
            return "did not get all that its worker said" if deaf else end_in_words(status)
        if time.monotonic() > deadline:
            if killed:
                return "can't be ended"
            send_signal(pid, signal.SIGKILL)
            deadline, killed = time.monotonic() + KILL_WAIT, True
        select.select([], [], [], pause)
        pause = min(2 * pause, 0.01)
