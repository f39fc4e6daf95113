"""Waits until the driver reports GPU memory free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

from ... import system
from ...gpu.slices.ownership import ids_in
from ...own import os, own_builtins
from ...protocol.endings import format_size
from ...protocol.messages import Notice, Run

if TYPE_CHECKING:
    from ...gpu.health.memory import GpuMemory
    from ...gpu.health.memory_reader import MemoryAnswer
    from .supervisor import Supervisor

own_builtins(globals())

_TICK = 0.02
"""Seconds between two polls of the keeper's messages while it waits for memory."""


class MemoryWait:
    """Waits, in the keeper, for GPU memory as the driver reports it.

    :param memory: reads the GPUs' memory; None if nothing can.
    """

    def __init__(self, supervisor: Supervisor, memory: GpuMemory | None) -> None:
        self._supervisor = supervisor
        self._memory = memory
        self._in_use: tuple[str, ...] = ()
        self._has_baseline = False
        self._release_expected = False
        self.is_waiting = False
        """Whether the keeper is in a wait, and may not begin anything else."""

    def prepare(self, run: Run) -> None:
        """Before a test: record what is in use on GPUs that it sees and that were not read yet."""
        if self._memory is None:
            return
        if not self._has_baseline:
            # An earlier keeper may have been killed, and its tests' memory may not be free yet.
            self._ask("begin", self._memory.ids)
            self._has_baseline = True
        gpus = self._gpus(run)
        if not {*self._memory.ids, *self._in_use}.issuperset(gpus):
            self._ask("note", gpus)
        self._in_use = gpus

    def close(self) -> None:
        """In a new host: close what only the keeper uses."""
        if self._memory is not None:
            self._memory.let_go()

    def expect_release(self) -> None:
        """Note that a process has ended that may have had GPU memory."""
        self._release_expected = True

    def await_returned(self) -> tuple[str, ...]:
        """Wait until the memory of ended processes is free; describe, in lines, what is not."""
        due, self._release_expected = self._release_expected, False
        if not due or self._memory is None or not self._memory.seconds or not self._in_use:
            return ()
        answer = self._ask("back", self._in_use)
        return () if answer is None else answer.lines

    def await_needed(self, run: Run) -> str:
        """Wait until the memory that a test needs is free; "" if it is or unknown, else why not."""
        if not run.gpu_memory:
            return ""
        if self._memory is None:
            self._notify("it is unknown how much is free")
            return ""
        answer = self._ask("need", self._gpus(run), run.gpu_memory)
        if answer is None:
            return ""
        if answer.unknown:
            self._notify(answer.unknown)
        if not answer.lines:
            return ""
        return f"needs {format_size(run.gpu_memory)} of GPU memory; {'; '.join(answer.lines)}"

    def _notify(self, why: str) -> None:
        self._supervisor.send(Notice(f"gpu_memory is not waited for: {why}"))

    def _gpus(self, run: Run) -> tuple[str, ...]:
        assert self._memory is not None
        said = ids_in(dict(run.key.environ))
        return self._memory.ids if said is None else said

    def _ask(self, what: str, gpus: Sequence[str], need: int = 0) -> MemoryAnswer | None:
        """Ask, and serve the keeper's messages meanwhile; None if the run is to stop."""
        assert self._memory is not None
        if not self._memory.trouble:
            self._memory.ask(what, gpus, self._test_processes(), need)
        self.is_waiting = True
        try:
            while True:
                answer = self._memory.answer(_TICK)
                if answer is not None or self._supervisor.stop_deadline is not None:
                    return answer
                self._supervisor.poll_now()
        finally:
            self.is_waiting = False

    def _test_processes(self) -> list[int]:
        """The living processes of tests, without those that survived SIGKILL."""
        abandoned = self._supervisor.orphans.abandoned
        return [pid for pid in system.descendants(os.getpid()) if pid not in abandoned]
