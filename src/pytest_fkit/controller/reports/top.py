"""The lists of the tests that took most of the machine, beside pytest's own ``--durations``."""

from __future__ import annotations

import heapq
from typing import Any, Sequence

import pytest

from ...journal.events import Event
from ...own import own_builtins
from ...protocol.endings import format_size

own_builtins(globals())


class Top:
    """Plugin, and a sink of the recorder.

    :param number: of tests in each list.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._memory: list[tuple[float, str]] = []
        self._cpu: list[tuple[float, str]] = []

    def take(self, events: Sequence[Event]) -> None:
        """Take events in."""
        for happened in events:
            if happened["event"] == "attempt" and "user" in happened:
                nodeid = str(happened["test"])
                self._enter(self._memory, happened["peak_memory"], nodeid)
                self._enter(self._cpu, happened["user"] + happened["system"], nodeid)

    def _enter(self, heap: list[tuple[float, str]], value: float, nodeid: str) -> None:
        push = heapq.heappush if len(heap) < self._number else heapq.heappushpop
        push(heap, (value, nodeid))

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show both lists."""
        for what, heap, show in (
            ("peak memory", self._memory, format_size),
            ("CPU time", self._cpu, lambda seconds: f"{seconds:.3f} s"),
        ):
            if heap:
                terminalreporter.write_sep("=", f"fkit: top {len(heap)} by {what}")
                for value, nodeid in sorted(heap, key=lambda each: (-each[0], each[1])):
                    terminalreporter.line(f"{show(value):>10}  {nodeid}")
