"""GPU memory that is not free yet: whose processes hold it, and what their driver has not taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Iterable, Sequence

from ... import system
from ...gpu.health.holders import holders
from ...gpu.slices.ownership import IDS
from ...own import os, own_builtins
from ...protocol.endings import format_size
from ...protocol.messages import Notice, Run

if TYPE_CHECKING:
    from ...gpu.health.memory import Answer, GpuMemory
    from .supervisor import Supervisor

own_builtins(globals())

_TICK = 0.02
"""Seconds between looks at other things, while memory is waited for."""


def await_release(
    pids: Callable[[], Iterable[int]],
    until: Callable[[Callable[[], bool], float], bool],
    limit: float,
) -> list[int]:
    """Wait until no process holds a GPU any more; those that do at the end.

    :param pids: gives the processes in question that are left.
    :param until: waits for something to be true, so many seconds at most.
    :param limit: seconds.
    """
    if holders(pids()):
        until(lambda: not holders(pids()), limit)
    return holders(pids())


class MemoryWait:
    """Of a keeper: waits for memory of GPUs as their driver counts it.

    :param memory: who is asked, None if there is nobody.
    """

    def __init__(self, below: Supervisor, memory: GpuMemory | None) -> None:
        self._below = below
        self._memory = memory
        self._in_use: tuple[str, ...] = ()
        self._begun = False
        self.is_due = False
        """Whether a process has ended that may have had memory."""
        self.waits = False
        """Whether it does, and other things have to wait until it is through."""

    def begins(self, run: Run) -> None:
        """Before a test: know what is in use on GPUs that it sees and nobody looked at."""
        if self._memory is None:
            return
        if not self._begun:
            # An earlier keeper may have been killed, and what its tests had not be free yet.
            self._ask("begin", self._memory.ids)
            self._begun = True
        gpus = self._gpus(run)
        if not {*self._memory.ids, *self._in_use}.issuperset(gpus):
            self._ask("note", gpus)
        self._in_use = gpus

    def let_go(self) -> None:
        """In a process that is no keeper."""
        if self._memory is not None:
            self._memory.let_go()

    def back(self) -> tuple[str, ...]:
        """Wait until what ended processes had is free again; what is not, for people."""
        due, self.is_due = self.is_due, False
        if not due or self._memory is None or not self._memory.seconds or not self._in_use:
            return ()
        answer = self._ask("back", self._in_use)
        return () if answer is None else answer.lines

    def lacking(self, run: Run) -> str:
        """Wait until the memory that a test needs is free; "" if it is, or nobody knows."""
        if not run.gpu_memory:
            return ""
        if self._memory is None:
            self._tell("nobody can be asked how much is free")
            return ""
        answer = self._ask("need", self._gpus(run), run.gpu_memory)
        if answer is None:
            return ""
        if answer.unknown:
            self._tell(answer.unknown)
        if not answer.lines:
            return ""
        return f"needs {format_size(run.gpu_memory)} of GPU memory; {'; '.join(answer.lines)}"

    def _tell(self, why: str) -> None:
        self._below.send(Notice(f"gpu_memory is not waited for: {why}"))

    def _gpus(self, run: Run) -> tuple[str, ...]:
        assert self._memory is not None
        said = dict(run.environ).get(IDS)
        return self._memory.ids if said is None else tuple(filter(None, said.split(",")))

    def _ask(self, what: str, gpus: Sequence[str], need: int = 0) -> Answer | None:
        """What came of it, None if the run is to stop."""
        assert self._memory is not None
        if not self._memory.trouble:
            self._memory.ask(what, gpus, self._ours(), need)
        self.waits = True
        try:
            while True:
                answer = self._memory.answer(_TICK)
                if answer is not None or self._below.stop_deadline is not None:
                    return answer
                self._below.attend()
        finally:
            self.waits = False

    def _ours(self) -> list[int]:
        """Processes of tests that live, other than those that could not be ended."""
        given_up = self._below.orphans.abandoned
        return [pid for pid in system.descendants(os.getpid()) if pid not in given_up]
