"""Looks at test processes of which a thread waits after a fatal signal, then lets them die."""

from __future__ import annotations

from collections import Counter
from typing import Iterable

from ... import system
from ...named_tuple import NamedTuple
from ...own import os, own_builtins, own_imports, time
from ...protocol.crash_report import NativeStacks
from ...protocol.descriptors import read_from, read_tail
from ...protocol.endings import Signaled
from ...protocol.stacks import Frame, crashed_stack
from ...system.cores import read_core
from ..process.crash_wait import FATAL, crashed
from ..process.tree import KILL_WAIT, send_signal
from .debugger import Debugger
from .jobs import Job
from .kept_cores import Cores

own_builtins(globals())

# Seconds.
TICK = 0.1  # between looks at the running test's process
ROUND = 1.0  # between looks at all processes below the keeper

DIED_AT_ONCE = (
    "the process died at once: it had blocked the signal or replaced its handler, a thread's stack "
    "was full, or several threads crashed together"
)
BY_CORE = "with --fkit-cores=DIR it is taken from the core"


def end_crashed(pids: Iterable[int]) -> None:
    """Let those of these processes die of which a thread waits after a fatal signal."""
    for pid in pids:
        crash = crashed(pid)
        if crash is not None:
            send_signal(pid, crash[1])


class Crash(NamedTuple):
    """What is known of a crash before a debugger is asked.

    :param stack: of the thread that crashed, in Python, the innermost frame first.
    :param said: the last lines on its stderr.
    """

    signal: int
    stack: tuple[Frame, ...]
    said: bytes


class AskedBefore:
    """Remembers for which crashes the debugger was asked, of which each takes seconds.

    A test that is repeated a hundred times, or a hundred tests of the same broken function, would
    say the same a hundred times. But one line of a test may call a different native function for
    each of its parameters: crashes are alike where those before were all in one native function.
    """

    MOST_ALIKE = 3
    """Crashes alike for which a debugger is asked."""

    MOST_THERE = 10
    """Crashes by the same signal in the same line of Python for which one is asked."""

    def __init__(self) -> None:
        self._before: dict[Crash, list[NativeStacks]] = {}
        self._there: Counter[tuple[int, tuple[Frame, ...]]] = Counter()

    def alike(self, crash: Crash) -> NativeStacks | None:
        """What was printed of one like this; None if it takes the debugger to know."""
        before = self._before.get(crash, [])
        if not crash.stack or len(before) < self.MOST_ALIKE:
            return None
        with own_imports():  # few runs need it, and each keeper would pay for it
            from ...protocol.native_frames import function_of

        where = {function_of(stacks) for stacks in before}
        return before[-1]._replace(seconds=0.0, alike=True) if len(where) == 1 else None

    def is_enough(self, crash: Crash) -> bool:
        """Whether it was asked often enough for crashes in this line of Python."""
        return self._there[crash.signal, crash.stack[:1]] >= self.MOST_THERE

    def remember(self, crash: Crash, stacks: NativeStacks) -> None:
        """It was asked."""
        self._there[crash.signal, crash.stack[:1]] += 1
        if len(self._before) < _MOST_KNOWN and len(stacks.text) <= _LONGEST_KNOWN:
            self._before.setdefault(crash, []).append(stacks)


_MOST_KNOWN = 256
_LONGEST_KNOWN = 1 << 16
"""Bytes of what a debugger printed: 15 threads of 40 frames."""

_LAST_SAID = 3
"""Lines: a Rust panic has the reason and a note below it."""

_TAIL = 4096


def _last_said(descriptor: int) -> bytes:
    return b"\n".join(read_tail(descriptor, _TAIL).splitlines()[-_LAST_SAID:])


class Crashes:
    """Watches the processes below the keeper.

    :param debugger: None if nobody is to be asked for stacks.
    :param cores: None if none are kept; if both are None, no process waits.
    """

    def __init__(self, debugger: Debugger | None, cores: Cores | None) -> None:
        self._debugger = debugger
        self._cores = cores
        self._asked = AskedBefore()
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
                looked_at = () if job is None or job.done else (job.process,)
                end_crashed(set(system.descendants(os.getpid())).difference(looked_at))
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
                job.native = self._stacks(self._debugger, job, thread, number)
            if self._cores is not None and job.core is None:
                job.core, ended = self._cores.let_die(pid, thread, number), True
            if job.deadline is not None:  # the limit is the test's, not the debugger's
                job.deadline = time.monotonic() + KILL_WAIT
        if not ended:
            send_signal(pid, number)

    def _stacks(self, debugger: Debugger, job: Job, thread: int, number: int) -> NativeStacks:
        stack = crashed_stack(read_from(job.files.dump).decode("utf-8", "replace"))
        crash = Crash(number, stack, _last_said(job.files.err))
        before = self._asked.alike(crash)
        if before is not None:
            return before
        if self._asked.is_enough(crash):
            most = self._asked.MOST_THERE
            why_not = f"asked for {most} crashes in the same line of Python before"
            return debugger.tools.crash.unasked(why_not)
        stacks = debugger.stacks(job.process, thread)
        self._asked.remember(crash, stacks)
        return stacks

    def ended(self, job: Job) -> None:
        """The running test's process has died: if it did not wait for us, look at its core."""
        ending = job.ending
        if job.host.key.wrapper or self._looking or job.verdict is not None:
            return
        if not isinstance(ending, Signaled):
            return
        self._looking = True
        try:
            if self._cores is not None and job.core is None:
                job.core = self._cores.of_dead(job.pid, ending.signal, ending.core_dumped)
            if self._debugger is not None and job.native is None:
                job.native = self._stacks_of_dead(self._debugger, job, ending.signal)
        finally:
            self._looking = False

    def _stacks_of_dead(self, debugger: Debugger, job: Job, number: int) -> NativeStacks | None:
        core = job.core
        if core is not None and core.path:
            return debugger.stacks_in(core.path, core.program, read_core(core.path).thread)
        if number not in FATAL:
            return None
        hint = BY_CORE if core is None else f"no core: {core.why_not}"
        return debugger.tools.crash.unasked(f"{DIED_AT_ONCE}; {hint}")

    def _is_dumped(self, job: Job | None) -> bool:
        """Whether faulthandler has written since the last look, for this process or a copy."""
        if job is None or job.done:  # a host that has died has its files closed
            return False
        files = [job.host.files] if job.child is None else [job.host.files, job.child.files]
        before, self._dumped = self._dumped, sum(os.fstat(each.dump).st_size for each in files)
        return before != self._dumped > 0
