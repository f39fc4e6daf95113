"""Limits of the running test: watched, and its process ended that is over one, with its stacks."""

from __future__ import annotations

from typing import Callable

from ... import system
from ...own import os, own_builtins, signal, time
from ...protocol.descriptors import read_from
from ...protocol.endings import Ending, Lost, MemoryExceeded, TimedOut
from ..process.tree import DUMP_SIGNAL, Settled, kill_tree, send_signal
from .forwarding import Forwarder
from .jobs import HostProcess, Job
from .orphans import KILL_WAIT

own_builtins(globals())

# Seconds.
DUMP_WAIT = 0.2  # for faulthandler to write the stacks of all threads
TERM_GRACE = 2.0  # between SIGTERM and SIGKILL


class Enforcer:
    """Of one keeper.

    :param until: waits until something is true, some seconds at most; whether it is.
    :param forwarder: passes on what was written before the end.
    :param abandon: goes on without a process that can't be ended.
    :param let_go: forgets a host.
    :param stop_deadline: when all has to be over; None where the run is not to stop.
    """

    def __init__(
        self,
        until: Callable[[Callable[[], bool], float], bool],
        forwarder: Forwarder,
        abandon: Callable[[int], None],
        let_go: Callable[[HostProcess], None],
        stop_deadline: Callable[[], float | None],
    ) -> None:
        self._until = until
        self._forwarder = forwarder
        self._give_up = abandon
        self._let_go = let_go
        self._stop_deadline = stop_deadline

    def check(self, job: Job) -> None:
        """End its process if the test is over a limit."""
        if job.verdict is not None:
            return
        if job.deadline is not None and time.monotonic() >= job.deadline:
            self.end(job, self._too_late(job))
        elif job.run.memory_limit and job.inherited_memory is not None:
            used = system.tree_memory(job.process, job.inherited_memory, job.run.memory_limit)
            job.peak_memory = max(job.peak_memory, used)
            if used > job.run.memory_limit:
                self.end(job, MemoryExceeded(job.run.memory_limit, job.peak_memory))

    def _too_late(self, job: Job) -> Ending:
        self._forwarder.forward(job)
        awaits = job.awaits
        if job.child is None and not job.stage and job.host.completed:
            awaits = "say that it is done"
        if awaits:
            return Lost(f"its host process did not {awaits} within {job.limit:g} s")
        state = system.process_state(job.process)
        if job.child is not None and state in ("", "Z"):
            return Lost(f"its host process did not say how it ended, within {job.limit:g} s")
        silent = job.child is not None and not job.child.events_read
        return TimedOut(job.limit, state, silent)

    def end(self, job: Job, verdict: Ending) -> None:
        """Fix the verdict, get the stacks, and end the process and all below it."""
        if job.verdict is not None:
            return
        self._forwarder.forward(job)
        job.verdict = verdict
        pid = job.process
        ended = self._is_over(job)
        files = job.child.files if job.child is not None else job.host.files
        # The process may end while we wait, and its files be closed.
        dump = os.dup(files.dump)
        try:
            before = os.fstat(dump).st_size
            settled = Settled(dump, before)
            send_signal(pid, DUMP_SIGNAL)
            send_signal(pid, signal.SIGCONT)
            self._until(lambda: ended() or settled(), DUMP_WAIT)
            job.dump = job.dump or read_from(dump, before)
        finally:
            os.close(dump)
        tree = [pid, *system.descendants(pid)]
        for process in tree:
            send_signal(process, signal.SIGTERM)
        if not self._until(ended, self.term_grace()):
            kill_tree(pid)
            if not self._until(ended, KILL_WAIT):
                self._abandon(job, pid)
        for process in tree[1:]:
            if system.process_state(process) not in ("", "Z"):
                kill_tree(process)

    def term_grace(self) -> float:
        """Seconds between SIGTERM and SIGKILL."""
        deadline = self._stop_deadline()
        if deadline is None:
            return TERM_GRACE
        return max(0.0, min(TERM_GRACE, deadline - time.monotonic()))

    def _is_over(self, job: Job) -> Callable[[], bool]:
        child = job.child
        if child is not None:
            return lambda: job.child is not child or job.done
        return lambda: job.done

    def _abandon(self, job: Job, pid: int) -> None:
        """Go on without a process that not even SIGKILL ends, and without its host."""
        job.survivors += (system.describe(pid),)
        self._give_up(pid)
        kill_tree(job.host.pid)
        if not self._until(lambda: job.done, KILL_WAIT):
            self._give_up(job.host.pid)
            self._let_go(job.host)
            job.conclude(job.verdict or Lost("it can't be ended"), pid)
            job.done = True
