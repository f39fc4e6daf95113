"""Looks at test processes of which a thread waits after a fatal signal, then lets them die."""

from __future__ import annotations

from ... import system
from ...own import os, own_builtins, time
from ...protocol.endings import Signaled
from ..process.crash_wait import crashed
from ..process.tree import send_signal
from .debugger import Debugger
from .jobs import Job
from .kept_cores import Cores
from .orphans import KILL_WAIT

own_builtins(globals())

# Seconds.
TICK = 0.1  # between looks at the running test's process
ROUND = 1.0  # between looks at all processes below the keeper


class Crashes:
    """Watches the processes below the keeper.

    :param debugger: None if nobody is to be asked for stacks.
    :param cores: None if none are kept; if both are None, no process waits.
    """

    def __init__(self, debugger: Debugger | None, cores: Cores | None) -> None:
        self._debugger = debugger
        self._cores = cores
        self._next_look = self._next_round = 0.0
        self._dumped = 0
        self._looking = False

    def look(self, job: Job | None) -> None:
        """If the running test's process crashed, ask for its stacks, end it, and keep its core.

        Other processes that crashed, which tests or wide fixtures started, are only ended: they
        wait as well, since they inherit the handler.
        """
        now = time.monotonic()
        if self._debugger is None and self._cores is None:
            return
        if self._looking or now < self._next_look:
            return
        self._looking = True
        try:
            self._next_look = now + TICK
            if job is not None and not job.done and not job.host.key.wrapper:
                self._look_at(job)
            if now >= self._next_round or self._is_dumped(job):
                self._next_round = now + ROUND
                for pid in system.descendants(os.getpid()):
                    self._end_if_crashed(pid, job)
        finally:
            self._looking = False

    def _look_at(self, job: Job) -> None:
        pid = job.process
        if self._cores is not None:
            self._cores.look(pid)
        crash = crashed(pid)
        if crash is None:
            return
        thread, number = crash
        ended = False
        if job.verdict is None:
            if self._debugger is not None and job.native is None:
                job.native = self._debugger.stacks(pid, thread)
            if self._cores is not None and job.core is None:
                job.core, ended = self._cores.let_die(pid, thread, number), True
            if job.deadline is not None:  # the limit is the test's, not the debugger's
                job.deadline = time.monotonic() + KILL_WAIT
        if not ended:
            send_signal(pid, number)

    def ended(self, job: Job) -> None:
        """The running test's process has died: if it did not wait for us, keep its core."""
        ending = job.ending
        if job.host.key.wrapper:
            return
        if self._cores is None or self._looking or job.core is not None or job.verdict is not None:
            return
        if isinstance(ending, Signaled):
            self._looking = True
            job.core = self._cores.of_dead(job.pid, ending.signal, ending.core_dumped)
            self._looking = False

    def _end_if_crashed(self, pid: int, job: Job | None) -> None:
        crash = crashed(pid) if job is None or job.done or pid != job.process else None
        if crash is not None:
            send_signal(pid, crash[1])

    def _is_dumped(self, job: Job | None) -> bool:
        """Whether faulthandler has written since the last look, for this process or a copy."""
        if job is None or job.done:  # a host that has died has its files closed
            return False
        files = [job.host.files] if job.child is None else [job.host.files, job.child.files]
        before, self._dumped = self._dumped, sum(os.fstat(each.dump).st_size for each in files)
        return before != self._dumped > 0
