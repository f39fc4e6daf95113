"""What workers tell of their tests, handed to xdist's session in the order of its arrival."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Protocol, Sequence

import pytest

from .. import private_api
from ..own import marshal, own_builtins
from .deaths import death_of

if TYPE_CHECKING:
    from ..journal.recorder import Recorder

own_builtins(globals())


class Listener(Protocol):
    """Who follows how far workers are; everything is told on the main thread."""

    def pass_on(self, node: Any, told: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """What of this plugins are to hear now; some of it may be for :meth:`begins`, `retry`."""

    def begins(self, node: Any, position: int) -> None:
        """A worker begins the test at a position of its collection."""

    def retry(self, node: Any, position: int, seconds: float) -> None:
        """The test there is to be tried again by another worker."""

    def died(self, node: Any, nodeid: str) -> None:
        """The process of a test died."""

    def act(self) -> None:
        """That was all for the moment."""


class Arrivals:
    """Takes messages in on the threads that receive them, and handles them on the main one.

    :param show: writes a line that a test wrote.
    :param recorder: hears of all tests before plugins do, if there is one.
    """

    def __init__(
        self, config: pytest.Config, show: Callable[[str], None], recorder: Recorder | None
    ) -> None:
        self._config = config
        self._show = show
        self._recorder = recorder
        self._waiting: deque[Callable[[], None]] = deque()
        self.listener: Listener | None = None

    def add_line(self, line: str) -> None:
        """Take in a line that a test wrote; called in another thread."""
        # Lines are written between reports, not in the middle of one.
        self.add(lambda: self._show(line))

    def add_reports(self, node: Any, data: bytes) -> None:
        """Take in what a worker's WorkerReports sent; called in another thread."""
        self.add(lambda: self._handle(node, data))

    def add(self, action: Callable[[], None]) -> None:
        """Have something else done in its turn; called in any thread."""
        self._waiting.append(action)
        private_api.call_on_main_loop(self._config, self.handle)

    def handle(self) -> None:
        """Handle what is there."""
        while self._waiting:
            self._waiting.popleft()()
        if self.listener is not None:
            self.listener.act()

    def _handle(self, node: Any, data: bytes) -> None:
        told = [self._with_report(*each) for each in marshal.loads(data)]
        if self.listener is not None:
            told = self.listener.pass_on(node, told)
        self.tell(node, told)

    def tell(self, node: Any, told: Sequence[tuple[Any, ...]]) -> None:
        """Have plugins hear what a worker told of tests, with report objects."""
        session = private_api.dist_session(self._config)
        if self._recorder is not None:
            self._recorder.take(node.gateway.id, told)
        for kind, *values in told:
            if kind in ("begins", "retry"):
                if self.listener is not None:
                    getattr(self.listener, kind)(node, *values)
            elif kind not in ("attempt", "gpu_error"):
                getattr(session, f"worker_{kind}")(node, *values)
                if self.listener is not None and death_of(values[0]) is not None:
                    self.listener.died(node, values[0].nodeid)

    def _with_report(self, kind: str, *values: Any) -> tuple[Any, ...]:
        if kind != "testreport":
            return (kind, *values)
        config = self._config
        hook = config.hook.pytest_report_from_serializable
        return kind, hook(config=config, data=values[0])
