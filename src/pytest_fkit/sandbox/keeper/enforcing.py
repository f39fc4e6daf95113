"""Looks at the process of the running test: ends one over a limit, describes one that goes on."""

from __future__ import annotations

import math
from typing import Callable, Sequence

from ... import system
from ...own import os, own_builtins, signal, time
from ...protocol.descriptors import Files, read_from, read_tail
from ...protocol.endings import Ending, Lost, MemoryExceeded, TimedOut
from ...protocol.messages import Inspected
from ..process.tree import (
    DUMP_SIGNAL,
    KILL_WAIT,
    StoppedGrowing,
    Until,
    below,
    kill_tree,
    send_signal,
)
from .debugger import Debugger
from .forwarding import Forwarder
from .jobs import HostProcess, Job
from .wrapped import WRAPPER_LIMIT

own_builtins(globals())

# Seconds.
DUMP_WAIT = 0.2  # for faulthandler to write the stacks of all threads
TERM_GRACE = 2.0  # between SIGTERM and SIGKILL


def dump_stacks(
    pid: int, files: Files, signals: Sequence[int], until: Until, ended: Callable[[], bool]
) -> tuple[int, bytes]:
    """Have a test process write its stacks: where in the file they begin, and the stacks.

    :param signals: sent to it, DUMP_SIGNAL among them.
    :param ended: whether nothing more will come.
    """
    # A duplicate: the process may end while we wait, and the keeper then closes its files.
    descriptor = os.dup(files.dump)
    try:
        before = os.fstat(descriptor).st_size
        complete = StoppedGrowing(descriptor, before)
        for number in signals:
            send_signal(pid, number)
        until(lambda: ended() or complete(), DUMP_WAIT)
        return before, read_from(descriptor, before)
    finally:
        os.close(descriptor)


class Enforcer:
    """Checks time and memory limits, and ends test processes that exceed them.

    :param forwarder: forwards what was written before the end.
    :param abandon: stops waiting for a process that survived SIGKILL.
    :param forget_host: removes a host from the keeper's list.
    :param debugger: asked for the stacks of a process that hangs; None if nobody is to be asked.
    :param stop_deadline: returns when a stopped run has to be over, None while it is not stopped.
    """

    def __init__(
        self,
        until: Until,
        forwarder: Forwarder,
        abandon: Callable[[int], None],
        forget_host: Callable[[HostProcess], None],
        debugger: Debugger | None,
        stop_deadline: Callable[[], float | None],
    ) -> None:
        self._until = until
        self._forwarder = forwarder
        self._abandon = abandon
        self._forget_host = forget_host
        self._debugger = debugger
        self._stop_deadline = stop_deadline

    def check(self, job: Job) -> None:
        """End the test's process if it is over a limit."""
        if job.verdict is not None:
            return
        if job.deadline is not None and time.monotonic() >= job.deadline:
            self.end(job, self._timeout_ending(job))
        elif job.run.memory_limit and job.inherited_memory is not None:
            used = system.tree_memory(job.process, job.inherited_memory, job.run.memory_limit)
            job.peak_memory = max(job.peak_memory, used)
            if used > job.run.memory_limit:
                self.end(job, MemoryExceeded(job.run.memory_limit, job.peak_memory))

    def _timeout_ending(self, job: Job) -> Ending:
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
        """Fix the verdict, dump the stacks, and end the process and all below it."""
        if job.verdict is not None:
            return
        self._forwarder.forward(job)
        job.judge(verdict)
        pid = job.process
        ended = self._is_over(job)
        _, dump = dump_stacks(pid, job.files, (DUMP_SIGNAL, signal.SIGCONT), self._until, ended)
        job.dump = job.dump or dump
        wrapped = bool(job.host.key.wrapper)
        if self._debugger is not None and isinstance(verdict, TimedOut) and not wrapped:
            job.native = job.native or self._debugger.stacks(pid)
        tree = [pid, *below(pid)]
        for process in tree:
            send_signal(process, signal.SIGTERM)
        if not self._until(ended, self.term_grace()):
            kill_tree(job.host.pid if wrapped else pid)
            if not self._until(ended, KILL_WAIT):
                self._give_up_on(job, pid)
        for process in tree[1:]:
            if system.process_state(process) not in ("", "Z"):
                kill_tree(process)

    def term_grace(self) -> float:
        """Seconds between SIGTERM and SIGKILL."""
        deadline = self._stop_deadline()
        if deadline is None:
            return TERM_GRACE
        return max(0.0, min(TERM_GRACE, deadline - time.monotonic()))

    def await_session(self, host: HostProcess, limit: float) -> tuple[str, ...]:
        """Wait until the session of a fresh interpreter that was told to finish is over.

        :param limit: what wide fixtures have, in seconds; 0 for no limit.
        :return: what to say of it if it went on for longer.
        """
        limit = max(limit, TERM_GRACE) if limit else math.inf
        end = time.monotonic() + limit

        def is_over() -> bool:
            gone = host.status is not None or not host.session_goes_on
            return gone or time.monotonic() > min(end, self._stop_deadline() or math.inf)

        self._until(is_over, math.inf)
        if host.status is not None or not host.session_goes_on:
            return ()
        after = f"after {limit:g} s" if time.monotonic() > end else "when the run was stopped"
        return (f"pid {host.pid}: the tests' own, of which pytest's session went on {after}",)

    def await_end(self, host: HostProcess, limit: float) -> bool:
        """Wait until a host whose session is over has exited, or a wrapper that runs it.

        :param limit: what a wrapper has, in seconds; 0 for the usual limit.
        :return: whether it has.
        """
        grace = 0.0 if host.session_goes_on else self.term_grace()
        if host.key.wrapper and self._stop_deadline() is None:
            grace = max(grace, limit or WRAPPER_LIMIT)

        def is_over() -> bool:
            late = time.monotonic() > (self._stop_deadline() or math.inf)
            return host.status is not None or late

        return self._until(is_over, grace) and host.status is not None

    def _is_over(self, job: Job) -> Callable[[], bool]:
        child = job.child
        if child is not None:
            return lambda: job.child is not child or job.done
        return lambda: job.done

    def _give_up_on(self, job: Job, pid: int) -> None:
        """Give up on a process that survived SIGKILL, and on its host."""
        job.survivors += (system.describe(pid),)
        self._abandon(pid)
        kill_tree(job.host.pid)
        if not self._until(lambda: job.done, KILL_WAIT):
            self._abandon(job.host.pid)
            self._forget_host(job.host)
            job.conclude(job.verdict or Lost("it can't be ended"), pid)
            job.done = True


_TAIL = 4096
"""Bytes of output in which its last line is looked for."""


def inspect(job: Job, until: Until) -> Inspected:
    """What the process that runs the test does now."""
    source = job.test_process
    pid, line, dump = source.pid, _last_line(source.files), b""
    # By default the signal would end a process: one that has become another program, for example.
    if system.catches(pid, DUMP_SIGNAL):
        before, dump = dump_stacks(pid, source.files, (DUMP_SIGNAL,), until, lambda: False)
        source.dump_read = before + len(dump)
    return Inspected(pid, line, dump)


def _last_line(files: Files) -> str:
    """The last line of output and error output; of that which was written later."""
    descriptors = sorted((files.out, files.err), key=lambda each: os.fstat(each).st_mtime_ns)
    for descriptor in reversed(descriptors):
        tail = read_tail(descriptor, _TAIL).decode("utf-8", "replace")
        lines = [line.strip() for line in tail.splitlines() if line.strip(" \0\t")]
        if lines:
            return lines[-1]
    return ""
