"""Processes that became the keeper's children when theirs ended: reaped, named, and ended."""

from __future__ import annotations

from typing import Callable, Sequence

from ... import system
from ...own import os, own_builtins, suppress
from ..process.tree import end_trees
from .gpu_memory import await_release
from .jobs import HostProcess, Job

own_builtins(globals())

# Seconds.
KILL_WAIT = 2.0  # for SIGKILL to take effect
_GRACE = 0.1  # for processes of an ended test to end by themselves
RELEASE_WAIT = 5.0  # for processes that not even SIGKILL ended to let go of GPUs


class Orphans:
    """Of the keeper, which is the subreaper of all below it.

    :param hosts: those that there are.
    :param spares: the same.
    :param until: waits for something to be true, so many seconds at most; whether it is.
    """

    def __init__(
        self,
        hosts: Sequence[HostProcess],
        spares: Sequence[HostProcess],
        until: Callable[[Callable[[], bool], float], bool],
    ) -> None:
        self._hosts = hosts
        self._spares = spares
        self._until = until
        self._abandoned: set[int] = set()
        self._hold_gpus: set[int] = set()  # those of them that nobody waits for any more
        self.at_end: Callable[[], None] = lambda: None
        """Called when one of them has ended."""

    def abandon(self, pid: int) -> None:
        """Go on without a process that not even SIGKILL ends."""
        self._abandoned.add(pid)

    @property
    def abandoned(self) -> set[int]:
        """Those that could not be ended, and all below them."""
        return self._abandoned.union(*map(system.descendants, self._abandoned))

    def has_ended(self, pid: int) -> None:
        """It did end."""
        self._abandoned.discard(pid)

    def note_daemons(self, host: HostProcess) -> None:
        """Take what became ours by now for what wide fixtures, or a fresh import, started."""
        host.daemons |= system.adopted_children(self._known())

    def reap(self) -> None:
        """Take down those that have ended."""
        for pid in system.adopted_children(self._known()) | self._abandoned:
            with suppress(ChildProcessError):  # not ours, after all
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self.has_ended(pid)
                    self.at_end()

    def _known(self) -> set[int]:
        living = {host.pid for host in self._hosts if host.status is None}
        return living | {spare.pid for spare in self._spares} | self._abandoned

    def sweep(self, host: HostProcess, child: int = 0) -> tuple[str, ...]:
        """End what a test, or a host that is gone, left running.

        :param child: the test's process; what fixtures of the host started is spared then.
        :return: what had to be ended.
        """
        known = self._known() | (host.daemons if child else set())

        def left() -> set[int]:
            others = {
                daemon for other in self._hosts if other is not host for daemon in other.daemons
            }
            found = system.adopted_children(known | others)
            if found:
                # Not when SIGCHLD says so: that may be the signal that brought us here.
                self.reap()
                found = system.adopted_children(known | others)
            if system.PORTABLE:
                found |= set(system.descendants(child or host.pid))
            return found

        if not left() or self._until(lambda: not left(), _GRACE):
            return ()
        named = end_trees(left, self._until, KILL_WAIT)
        self._abandoned |= left()
        return named

    def await_gpus(self, job: Job) -> None:
        """Give processes that could not be ended some time to let go of GPUs; name the others."""
        if self._abandoned - self._hold_gpus:
            left = await_release(self._unwaited, self._until, RELEASE_WAIT)
            job.hold_gpus = tuple(system.describe(pid) for pid in left)
            self._hold_gpus |= {*left, *self._abandoned}

    def _unwaited(self) -> set[int]:
        roots = self._abandoned - self._hold_gpus
        return roots.union(*map(system.descendants, roots)) - self._hold_gpus
