"""Orphans: processes that the keeper adopts as subreaper. It reaps, describes and kills them."""

from __future__ import annotations

from typing import Callable, Iterable, Sequence

from ... import system
from ...own import os, own_builtins, suppress
from ...system.unforkable import holders
from ..process.tree import KILL_WAIT, Until, below, cleans_up, end_trees, is_alive, lingers
from .jobs import HostProcess, Job

own_builtins(globals())

# Seconds.
_GRACE = 0.1  # for processes of an ended test to exit by themselves
_CLEANING = 10.0  # for those that remove what a dead test left in shared memory
RELEASE_WAIT = 5.0  # for processes that survived SIGKILL to release GPUs


class Orphans:
    """Tracks the keeper's adopted children, and processes that survive SIGKILL.

    :param hosts: the keeper's list of hosts, which changes.
    :param spares: the keeper's list of spare hosts, which changes.
    """

    def __init__(
        self, hosts: Sequence[HostProcess], spares: Sequence[HostProcess], until: Until
    ) -> None:
        self._hosts = hosts
        self._spares = spares
        self._until = until
        self._abandoned: set[int] = set()
        self._lingering: set[int] = set()
        self._spared = 0
        self._hold_gpus: set[int] = set()  # abandoned ones that had RELEASE_WAIT already
        self.on_end: Callable[[], None] = lambda: None
        """Called when an orphan or an abandoned process has ended."""

    def abandon(self, pid: int) -> None:
        """Stop waiting for a process that survived SIGKILL."""
        self._abandoned.add(pid)

    def spare(self, pid: int) -> None:
        """Leave a process alone that the keeper started and waits for itself; 0 for none."""
        self._spared = pid

    @property
    def abandoned(self) -> set[int]:
        """The processes that survived SIGKILL, and all below them."""
        return self._abandoned.union(*map(system.descendants, self._abandoned))

    def forget(self, pid: int) -> None:
        """Record that a process has ended."""
        self._abandoned.discard(pid)
        self._lingering.discard(pid)

    def record_daemons(self, host: HostProcess) -> None:
        """Attribute all orphans that exist now to the host's wide fixtures or imports."""
        host.daemons |= system.adopted_children(self._known())

    def reap(self) -> None:
        """Reap orphans and abandoned processes that have ended."""
        for pid in system.adopted_children(self._known()) | self._abandoned | self._lingering:
            with suppress(ChildProcessError):  # not a child of the keeper
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self.forget(pid)
                    self.on_end()

    def _known(self) -> set[int]:
        living = {host.pid for host in self._hosts if host.status is None}
        spares = {spare.pid for spare in self._spares}
        return living | spares | self._abandoned | self._lingering | {self._spared}

    def sweep(self, host: HostProcess, child: int = 0) -> tuple[str, ...]:
        """End what a test, or a host that has ended, left running.

        :param child: pid of the test's process; spares what the host's wide fixtures started. 0 if
            the host has ended.
        :return: descriptions of the processes that had to be killed.
        """
        daemons = host.daemons if child else set()

        def left() -> set[int]:
            spared = self._known().union(
                daemons, *(other.daemons for other in self._hosts if other is not host)
            )
            found = system.adopted_children(spared)
            if found:
                # Don't leave it to the SIGCHLD handling: that may be what called this.
                self.reap()
                found = system.adopted_children(spared)
            if system.PORTABLE:
                found |= set(system.descendants(child or host.pid))
            return found

        if not left() or self._until(lambda: not left(), _GRACE):
            return ()
        # First what those that clean up wait for.
        named = end_trees(
            lambda: {pid for pid in left() if not cleans_up(pid)}, self._until, KILL_WAIT
        )
        self._lingering.update(filter(lingers, left()))
        if not self._until(lambda: not left(), _CLEANING):
            named += end_trees(left, self._until, KILL_WAIT)
        self._abandoned |= left()
        return named

    def end_below(self, host: HostProcess) -> tuple[str, ...]:
        """End what a host that does not exit has left running; return descriptions of it."""
        return end_trees(lambda: set(filter(is_alive, below(host.pid))), self._until, KILL_WAIT)

    def await_gpu_release(self, job: Job) -> None:
        """Give processes that survived SIGKILL time to release GPUs; record those that don't."""
        if self._abandoned - self._hold_gpus:
            left = await_release(self._newly_abandoned, self._until, RELEASE_WAIT)
            job.hold_gpus = tuple(system.describe(pid) for pid in left)
            self._hold_gpus |= {*left, *self._abandoned}

    def _newly_abandoned(self) -> set[int]:
        roots = self._abandoned - self._hold_gpus
        return roots.union(*map(system.descendants, roots)) - self._hold_gpus


def await_release(pids: Callable[[], Iterable[int]], until: Until, limit: float) -> list[int]:
    """Wait until none of the processes has a GPU open; return those that still have at the end.

    :param pids: returns the processes in question that still exist.
    :param limit: seconds.
    """
    if holders(pids()):
        until(lambda: not holders(pids()), limit)
    return holders(pids())
