"""Forks the children of a host, one of them ahead, and waits for their ends."""

from __future__ import annotations

from typing import Any, Callable, Generator

from ...named_tuple import NamedTuple
from ...own import os, own_builtins, select, signal, suppress
from ...protocol.channels import Pipes
from ...protocol.descriptors import Files
from ...protocol.messages import ChildExited, Message
from ...system.limits import insist
from ..child.child import DONE, Child
from ..child.usage import wait_for
from ..child.warmup import WARMUP_LIMIT, Warmup
from ..process.copies import Statuses, fork, heeding_audit_hooks
from ..process.output import flush
from ..process.progress import AnnouncedExit
from ..process.relay import FAILED
from ..process.steps import Fork, Handover, Role

own_builtins(globals())


CHILDREN = 2
"""Children that a host has at most at once: one that runs a test and one forked ahead."""


class ForkedChild(NamedTuple):
    """A child that waits for its order, or runs a test.

    :param number: index of its files in the sets that the host has for its children.
    :param pipes: by which it gets :class:`.messages.Go`, and may send :class:`.messages.Warm`.
    """

    pid: int
    number: int
    pipes: Pipes


class Children:
    """Forks and reaps the children of one host.

    :param child: gives each new child its role.
    :param measures: whether to measure what children use.
    :param report: see :class:`Statuses`.
    """

    def __init__(
        self, child: Child, measures: bool, warmup: Warmup, report: Callable[[Exception], None]
    ) -> None:
        self._child = child
        self._measures = measures
        self._warmup = warmup
        self._waiting: ForkedChild | None = None
        self.working_set = child.working_set
        self._sets: tuple[Files, ...] = ()
        self._exits: tuple[AnnouncedExit, ...] = ()
        self._free: list[int] = []
        self.statuses = Statuses(self._not_reaped, report, drops_interrupts=True)
        self.hosts_link: Pipes | None = None
        """The host's link to the keeper, which children close."""

    def begin(self, sets: tuple[Files, ...], exits: tuple[AnnouncedExit, ...]) -> None:
        """Prepare for the first child.

        :param sets: files that children use in turn, shared with the keeper. A set is free again
            when its child has ended: the keeper has read it before it orders the next test.
        :param exits: the announced exits of children, by the index of their set.
        """
        self._sets = sets
        self._exits = exits
        self._free = list(range(len(sets)))

    def end(self) -> None:
        """End all children and close their files; no other can be forked."""
        self.end_all()
        for files in self._sets:
            files.close()
        self._sets, self._free = (), []

    def next(self) -> Generator[Fork, int, ForkedChild]:
        """Return the child that was forked ahead, or fork one."""
        if self._waiting is not None and self._warmup.is_on:
            warm = self._warmup.succeeded(_receive(self._waiting, WARMUP_LIMIT))
            if not warm or _has_exited(self._waiting.pid):  # to give its GPU memory back
                self._end_all()
        child, self._waiting = self._waiting, None
        return child or (yield from self._fork(None))

    @property
    def may_fork_next(self) -> bool:
        """Whether a child may be forked between two tests.

        Not one that opens GPUs at once, while the keeper may wait for their memory to be free.
        """
        return self._waiting is None and not self._warmup.is_on

    def fork_ahead(self, running: ForkedChild | None = None) -> Generator[Fork, int, None]:
        """Fork the child of the next test.

        :param running: the child that runs a test meanwhile.
        """
        try:
            self._waiting = yield from self._fork(running)
        except OSError:  # a limit; if it persists, the next test reports it
            return

    def await_end(self, child: ForkedChild) -> ChildExited:
        """Wait until a child has ended."""
        try:
            status, used = _wait(child.pid, self._measures)
        except ChildProcessError:
            # A fixture made the kernel reap our children, by other means than Python's signal
            # module, see Statuses. The frames decide whether the test finished.
            return ChildExited(DONE << 8)
        finally:
            self.working_set.ended()
        return ChildExited(status, used=used, ours=self._exits[child.number].matches(status))

    def end_all(self) -> None:
        """End and reap all children, before code of users runs in the host.

        A child forked ahead would no longer be a copy of the host. Of those that have ended, a
        fixture could see zombies, and take their statuses by waitpid(2).
        """
        with self.statuses:
            self._end_all()

    def _not_reaped(self) -> list[int]:
        return [] if self._waiting is None else [self._waiting.pid]

    def _end_all(self) -> None:
        if self._waiting is not None:
            child, self._waiting = self._waiting, None
            _kill(child.pid)  # it may not read its pipe yet
            child.pipes.close()
            with suppress(ChildProcessError):  # see await_end
                _wait(child.pid)
            self.release(child)

    def files(self, child: ForkedChild) -> Files:
        return self._sets[child.number]

    def release(self, child: ForkedChild) -> None:
        """Close the pipes of a child that has ended, and let another use its files."""
        child.pipes.close()
        self._free.append(child.number)

    def fork_midway(self, handover: Handover) -> ForkedChild | None:
        """Fork a child that continues, from this call on, the test that the host has begun.

        :return: the child; None in the child itself, as soon as it has got its order.
        :raises OSError: if the kernel refuses.
        """
        number, host_end, child_end = self._prepare()
        host = os.getpid()
        try:
            pid = fork()
        except OSError:
            host_end.close()
            child_end.close()
            raise
        if pid == 0:
            role = self._begin(ForkedChild(host, number, child_end), host_end, None, midway=True)
            status = FAILED
            try:
                next(role)
            except StopIteration as end:
                status = end.value
            else:
                handover.role = role
                self.statuses.unblock_interrupts()
                return None
            finally:
                if handover.role is None:
                    os._exit(status)
        child_end.close()
        self._free.remove(number)
        return ForkedChild(pid, number, host_end)

    def _fork(self, running: ForkedChild | None) -> Generator[Fork, int, ForkedChild]:
        number, host_end, child_end = self._prepare()
        child = self._begin(ForkedChild(os.getpid(), number, child_end), host_end, running)
        try:
            pid = yield Fork(child)
        except OSError:
            host_end.close()
            raise
        finally:
            child_end.close()
        self._free.remove(number)
        return ForkedChild(pid, number, host_end)

    def _prepare(self) -> tuple[int, Pipes, Pipes]:
        """Choose a child's files and make its pipes; return index, host's end and child's end.

        :raises OSError: if a limit of the machine, or an audit hook of the suite, forbids it.
        """
        number = self._free[0]
        heeding_audit_hooks(self._sets[number].renew)
        self._exits[number].clear()
        host_end, child_end = Pipes.pair()
        flush()
        return number, host_end, child_end

    def _begin(
        self, own: ForkedChild, host_end: Pipes, running: ForkedChild | None, midway: bool = False
    ) -> Role:
        """The role of a new child: close what is the host's, then run a test.

        :param own: the index of its files, its pipes, and the pid of the host.
        :param host_end: the host's end of the pipes.
        :param running: the child that runs a test meanwhile.
        :param midway: whether the host has begun the test.
        """
        if not self.working_set.is_wanted:
            self.working_set.common.copy_now()  # before any of these pages is written to
        if self.statuses.are_kept:
            self.statuses.leave()
        if self.hosts_link is not None:
            self.hosts_link.close()
        host_end.close()
        if running is not None:
            running.pipes.close()
        for number, files in enumerate(self._sets):
            if number != own.number:
                files.close()
        files = self._sets[own.number]
        warmup = None if running is None else self._warmup
        return (
            yield from self._child.main(
                files,
                self._exits[own.number],
                own.pipes,
                own.pid,
                warmup,
                self.statuses.unblock_interrupts,
                midway,
            )
        )


def _receive(child: ForkedChild, limit: float) -> Message | None:
    """Wait for a message of a child; None if it ends without one, or the limit is over.

    Waits for its end by a pidfd, not for the end of the stream alone: a process that the test left
    may hold the other end open.

    :param limit: seconds.
    """
    try:
        end = insist(os.pidfd_open, child.pid)
    except OSError:  # forbidden in a container; or the kernel has reaped the child, see await_end
        return None
    try:
        poller = select.poll()
        poller.register(child.pipes.reader, select.POLLIN)
        poller.register(end, select.POLLIN)
        while True:
            # poll(2) fails if RLIMIT_NOFILE is below the number of descriptors polled.
            found = [number for number, _ in insist(poller.poll, limit * 1000)]
            if child.pipes.reader not in found or not child.pipes.read():
                return child.pipes.take_message()
            message = child.pipes.take_message()
            if message is not None:
                return message
    finally:
        os.close(end)


def _wait(pid: int, measures: bool = False) -> tuple[int, tuple[Any, ...]]:
    """Wait for a child to end; its wait status, and what it used.

    :param measures: whether to measure what it used.
    :raises ChildProcessError: if it has been reaped already.
    """
    if not measures:
        return os.waitpid(pid, 0)[1], ()
    status, used = wait_for(pid)
    return status, tuple(used)


def _has_exited(pid: int) -> bool:
    """Whether a child has ended; does not reap it."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _kill(pid: int) -> None:
    """Kill a child, which ends by the end of its pipe as well."""
    try:
        os.kill(pid, signal.SIGKILL)
    except Exception:  # noqa: BLE001 (it has been reaped; or an audit hook may raise anything)
        return
