"""What runs now: a line on each test that is slow, and all of it on SIGUSR1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Sequence, Union

import pytest

from ... import system
from ...gpu.slices.ownership import OWNED
from ...own import os, own_builtins, signal, threading, time
from ...protocol.border import NothingRuns, RunningItem, SlowItem
from ...protocol.crash_report import CrashReport
from ...system.source_lines import showable
from ..schedule.machines import with_gpus
from .crash_shown import text_lines

if TYPE_CHECKING:
    from ...journal.recorder import Recorder

own_builtins(globals())

_LONGEST_LINE = 200
"""Characters of a line of output that are shown."""

_ANSWER_WAIT = 5.0
"""Seconds after which a worker that has not answered is named."""

Said = Union[SlowItem, RunningItem, NothingRuns]


class RunningTests:
    """Plugin of the process that owns the terminal."""

    def __init__(
        self, config: pytest.Config, show: Callable[[str], None], recorder: Recorder | None
    ) -> None:
        self._config = config
        self._show = show
        self._recorder = recorder
        self._began = time.time()
        self._before: Any = None
        self._awaited: dict[str, float] = {}
        self._asked = False
        self.on_ask: Callable[[], object] = lambda: None
        """Called in the handler of SIGUSR1, at any point of the main thread."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        # faulthandler.register() is not seen by Python's signal module.
        theirs = system.catches(os.getpid(), signal.SIGUSR1)
        if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL and not theirs:
            self._before = signal.signal(signal.SIGUSR1, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        del number, frame
        self._asked = True
        self.on_ask()

    def take_question(self) -> bool:
        """Whether somebody has asked since the last call."""
        asked, self._asked = self._asked, False
        return asked

    def restore(self) -> None:
        """Give the signal back; also in processes that are forked from this one."""
        if self._before is not None and signal.getsignal(signal.SIGUSR1) == self._handle:
            signal.signal(signal.SIGUSR1, self._before)
        self._before = None

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        self.restore()

    # --- who was asked ---

    def awaits(self, workers: Sequence[str]) -> None:
        now = time.monotonic()
        self._awaited.update((worker, now) for worker in workers)

    def silent(self) -> list[str]:
        """The workers that have not answered in time, each once."""
        now = time.monotonic()
        awaited = list(self._awaited.items())
        late = [each for each, since in awaited if now - since > _ANSWER_WAIT]
        for worker in late:
            self._awaited.pop(worker, None)
        return late

    # --- what they say ---

    def hear(self, worker: str, own: Sequence[str], said: Said, machine: str = "") -> None:
        """A worker says something of the test that it runs.

        :param own: the ids of the worker's GPUs.
        :param machine: of the worker, "" for the controller's.
        """
        if not isinstance(said, SlowItem):
            self._awaited.pop(worker, None)
        if isinstance(said, NothingRuns):
            self._show(f"fkit: {worker} runs no test")
            return
        gpus = said.gpus or tuple(own)
        place = with_gpus(worker, gpus, machine)
        nodeid = showable(said.nodeid)
        if isinstance(said, SlowItem):
            self._show(f"SLOW [> {said.seconds:g} s] {place} {nodeid}: {said.phase}")
            self._record("slow", worker, gpus, said)
            return
        process = f"pid {said.pid}" if said.pid else "no process at the moment"
        lines = [f"{place} {nodeid}: {said.phase}, {said.seconds:.1f} s, {process}"]
        line = showable(said.line)[:_LONGEST_LINE]
        lines.append(f"  last line of output: {line}" if line else "  no output so far")
        stack = "  no Python stack: the process can't be asked"
        lines += [f"  {each}" for each in self._stack(said)] if said.stacks else [stack]
        for each in lines:
            self._show(each.rstrip())
        self._record(
            "running", worker, gpus, said, pid=said.pid, line=said.line, stacks=said.stacks
        )

    def here(self, worker: str, said: Said) -> None:
        owned = self._config.stash.get(OWNED, None)
        self.hear(worker, () if owned is None else owned.ids, said)

    def _stack(self, said: RunningItem) -> list[str]:
        data = ["", (), said.stacks, (), said.origins]
        return text_lines(self._config, CrashReport.from_wire(data), self._began)

    def _record(
        self, name: str, worker: str, gpus: Sequence[str], said: SlowItem | RunningItem, **more: Any
    ) -> None:
        if self._recorder is not None:
            self._recorder.running(
                name, worker, gpus, said.nodeid, phase=said.phase, seconds=said.seconds, **more
            )
