"""Looks at the test that runs: whether it is slow, and what it does if somebody asks."""

from __future__ import annotations

from typing import Callable, Union

from ..gpu.slices.ownership import ids_in
from ..own import own_builtins, time
from ..protocol.border import RunningItem, SlowItem
from ..protocol.messages import Inspected
from ..protocol.plain_values import carriable
from ..protocol.stacks import origins, reorder_stacks
from .reports.replay import Replay

own_builtins(globals())

Tell = Callable[[Union[SlowItem, RunningItem]], None]


class Watch:
    """Watches one test at a time.

    :param slow: seconds after which a test is slow, 0 for never.
    :param inspect: has the keeper look at the test's process, for :meth:`inspected`.
    :param tell: tells whoever has the terminal.
    """

    def __init__(self, slow: float, inspect: Callable[[], None], tell: Tell) -> None:
        self._slow = slow
        self._inspect = inspect
        self._tell = tell
        self._replay: Replay | None = None
        self._phase = ""
        self._began = 0.0
        self._next = 0.0
        self._asked = False

    def ask(self) -> None:
        """Have the running test described soon; in any thread, or in a signal handler."""
        self._asked = True

    @property
    def busy(self) -> bool:
        """Whether a test runs."""
        return self._replay is not None

    def begins(self, replay: Replay, phase: str = "") -> None:
        """A test begins.

        :param phase: what is done instead of a phase of the test.
        """
        self._replay, self._phase = replay, phase
        self._began, self._next = time.monotonic(), self._slow

    def over(self) -> None:
        self._replay = None

    def look(self) -> None:
        """Tell what is to be told now; called by the thread that waits for the test."""
        replay = self._replay
        if replay is None:
            return
        if self._asked:
            self._asked = False
            self._inspect()
        seconds = time.monotonic() - self._began
        if self._slow and seconds >= self._next:
            passed = self._next
            while self._next <= seconds:
                passed, self._next = self._next, 2 * self._next
            nodeid = carriable(replay.item.nodeid)
            gpus = ids_in(replay.changed) or ()
            self._tell(SlowItem(nodeid, self._now(replay), passed, gpus))

    def inspected(self, found: Inspected) -> None:
        """Tell what the keeper has seen."""
        replay = self._replay
        if replay is None:
            return
        dump = found.dump.decode("utf-8", "replace")
        self._tell(
            RunningItem(
                carriable(replay.item.nodeid),
                self._now(replay),
                time.monotonic() - self._began,
                ids_in(replay.changed) or (),
                found.pid,
                found.line,
                reorder_stacks(dump) if dump.strip() else "",
                carriable(tuple(origins(replay.item.config))),
            )
        )

    def _now(self, replay: Replay) -> str:
        if self._phase:
            return self._phase
        wide = replay.setting_up
        if wide is not None:
            return str(carriable(f"setup of {wide.label}"))
        return "exit handlers, or wide fixtures" if replay.phase == "exit" else replay.phase
