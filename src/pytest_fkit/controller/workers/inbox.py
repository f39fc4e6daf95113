"""What workers tell of their tests, handed to xdist's session in the order of its arrival."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Protocol, Sequence

import pytest

from ...compat import xdist_controller
from ...own import own_builtins
from ...protocol.border import (
    ItemBegins,
    ItemComplete,
    ItemFinished,
    ItemReported,
    ItemStarted,
    OfTests,
    Reported,
    Told,
)
from ..retry.held_back import HeldBack
from ..schedule.decisions import Retry
from .death_texts import death_of

if TYPE_CHECKING:
    from ...journal.recorder import Recorder

own_builtins(globals())


class Listener(Protocol):
    """Who follows how far workers are; everything is told on the main thread."""

    def pass_on(self, node: Any, told: Sequence[Told]) -> Sequence[Told | Retry]:
        """What of this is to be told now, and what follows from it, in this order."""

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
    :param held_back: see there.
    :param account: is told what plugins are told.
    """

    def __init__(
        self,
        config: pytest.Config,
        show: Callable[[str], None],
        recorder: Recorder | None,
        held_back: HeldBack,
        account: Callable[[Any, Sequence[Told]], None],
    ) -> None:
        self._config = config
        self._show = show
        self._recorder = recorder
        self._held_back = held_back
        self._account = account
        self._waiting: deque[Callable[[], None]] = deque()
        self.listener: Listener | None = None
        self._handlers: dict[type[Any], Callable[[Any, Any], None]] = {
            ItemBegins: self._begins,
            Retry: self._retry,
            ItemStarted: self._started,
            Reported: self._reported,
            ItemFinished: self._finished,
            ItemComplete: self._complete,
        }

    def add_line(self, line: str) -> None:
        """Take in a line that a test wrote; called in another thread."""
        # Lines are written between reports, not in the middle of one.
        self.add(lambda: self._show(line))

    def add_told(self, node: Any, told: Sequence[OfTests]) -> None:
        """Take in what a worker told of tests; called in another thread."""
        self.add(lambda: self._handle(node, told))

    def add(self, action: Callable[[], None]) -> None:
        """Have something else done in its turn; called in any thread."""
        self._waiting.append(action)
        xdist_controller.call_on_main_loop(self._config, self.handle)

    def handle(self) -> None:
        """Handle what is there."""
        while self._waiting:
            self._waiting.popleft()()
        if self.listener is not None:
            self.listener.act()

    def _handle(self, node: Any, data: Sequence[OfTests]) -> None:
        told = self._held_back.pass_on(node, [self._with_report(each) for each in data])
        begun = self._held_back.begun(node)
        if begun is not None and self._recorder is not None:
            self._recorder.take(node.gateway.id, [begun])
        self._pass_on(node, told)

    def _pass_on(self, node: Any, told: Sequence[Told]) -> None:
        self.tell(node, told if self.listener is None else self.listener.pass_on(node, told))

    def lost(self, node: Any, again: bool) -> None:
        """A worker is gone.

        :param again: whether the test that it told of last is run again, so that what was held
            back of it is discarded.
        """
        begun, told = self._held_back.begun(node), self._held_back.release(node)
        if not again:
            self._pass_on(node, told)
        elif begun is not None and self._recorder is not None:
            self._recorder.forget(node.gateway.id, begun.nodeid)

    def tell(self, node: Any, told: Sequence[Told | Retry]) -> None:
        """Have plugins hear what a worker told of tests."""
        if self._recorder is not None:
            self._recorder.take(node.gateway.id, told)
        self._account(node, [each for each in told if not isinstance(each, Retry)])
        for each in told:
            handler = self._handlers.get(type(each))
            if handler is not None:
                handler(node, each)

    # --- one message ---

    def _begins(self, node: Any, begins: ItemBegins) -> None:
        if self.listener is not None:
            self.listener.begins(node, begins.position)

    def _retry(self, node: Any, retry: Retry) -> None:
        if self.listener is not None:
            self.listener.retry(node, retry.position, retry.seconds)

    def _started(self, node: Any, started: ItemStarted) -> None:
        xdist_controller.dist_session(self._config).worker_logstart(node, *started)

    def _reported(self, node: Any, reported: Reported) -> None:
        report = reported.report
        xdist_controller.dist_session(self._config).worker_testreport(node, report)
        if self.listener is not None and death_of(report) is not None:
            self.listener.died(node, report.nodeid)

    def _finished(self, node: Any, finished: ItemFinished) -> None:
        xdist_controller.dist_session(self._config).worker_logfinish(node, *finished)

    def _complete(self, node: Any, complete: ItemComplete) -> None:
        xdist_controller.dist_session(self._config).worker_runtest_protocol_complete(
            node, *complete
        )

    def _with_report(self, told: OfTests) -> Told:
        if not isinstance(told, ItemReported):
            return told
        config = self._config
        hook = config.hook.pytest_report_from_serializable
        return Reported(told.position, hook(config=config, data=told.data))
