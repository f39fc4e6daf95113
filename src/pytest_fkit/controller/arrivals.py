"""What workers tell of their tests, handed to xdist's session in the order of its arrival."""

from __future__ import annotations

import marshal
from collections import deque
from typing import Any, Callable

import pytest

from .. import private_api


class Arrivals:
    """Takes messages in on the threads that receive them, and handles them on the main one.

    :param show: writes a line that a test wrote.
    """

    def __init__(self, config: pytest.Config, show: Callable[[str], None]) -> None:
        self._config = config
        self._show = show
        self._waiting: deque[Callable[[], None]] = deque()

    def add_line(self, line: str) -> None:
        """Take in a line that a test wrote; called in another thread."""
        # Lines are written between reports, not in the middle of one.
        self._add(lambda: self._show(line))

    def add_reports(self, node: Any, data: bytes) -> None:
        """Take in what a worker's WorkerReports sent; called in another thread."""
        self._add(lambda: self._handle(node, data))

    def _add(self, action: Callable[[], None]) -> None:
        self._waiting.append(action)
        private_api.call_on_main_loop(self._config, self.handle)

    def handle(self) -> None:
        """Handle what is there."""
        while self._waiting:
            self._waiting.popleft()()

    def _handle(self, node: Any, data: bytes) -> None:
        session = private_api.dist_session(self._config)
        hooks = self._config.hook
        for kind, *values in marshal.loads(data):  # noqa: S302 (the writer is ours)
            if kind == "testreport":
                report = hooks.pytest_report_from_serializable(config=self._config, data=values[0])
                session.worker_testreport(node, report)
            else:
                getattr(session, f"worker_{kind}")(node, *values)
