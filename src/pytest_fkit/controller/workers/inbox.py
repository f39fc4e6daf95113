"""What workers tell of their tests, handed to xdist's session in the order of its arrival."""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence

import pytest

from ...compat import xdist_controller
from ...compat.pytest_reports import report_from
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
from ...protocol.whereabouts import Whereabouts
from ..reports.report_attributes import death_of
from ..retry.retries import Retry

if TYPE_CHECKING:
    from xdist.dsession import DSession
    from xdist.workermanage import WorkerController

    from ..repeat.repeating import Repeating
    from ..reports.services import RunServices
    from .dispatch import Dispatch

own_builtins(globals())


@dataclass
class _Open:
    """A test that has begun.

    :param passed: whether some of it was passed on already, so that the rest is not held back.
    """

    told: list[Told] = field(default_factory=list)
    passed: bool = False


class HeldBack:
    """Holds back what is told of a test that shares a process until the test is complete.

    Until then its process may be some tests ahead of what its worker has said. If the worker dies
    the test is run again, and plugins must not have heard half of it before.

    :param whereabouts: those of a worker, None if it does not share them.
    """

    def __init__(self, whereabouts: Callable[[WorkerController], Whereabouts | None]) -> None:
        self._whereabouts = whereabouts
        self._open: dict[WorkerController, _Open] = {}

    def pass_on(self, node: WorkerController, told: Iterable[Told]) -> list[Told]:
        """What of this may be handled now."""
        whereabouts = self._whereabouts(node)
        if whereabouts is None:
            return list(told)
        now: list[Told] = []
        for each in told:
            if isinstance(each, ItemBegins):
                now += self.release(node)
                self._open[node] = _Open()
                now.append(each)
            elif node not in self._open:
                now.append(each)
            elif isinstance(each, ItemComplete):
                now += [*self.release(node), each]
            # A process notes its whereabouts before it says anything else of the test.
            elif self._open[node].passed or whereabouts.running is None:
                now += [*self._open[node].told, each]
                self._open[node] = _Open(passed=True)
            else:
                self._open[node].told.append(each)
        return now

    def begun(self, node: WorkerController) -> ItemStarted | None:
        """The start of the test that is held back, if there is one."""
        told = self._open[node].told if node in self._open else []
        return next((each for each in told if isinstance(each, ItemStarted)), None)

    def release(self, node: WorkerController) -> list[Told]:
        """Stop holding back; what was held back is to be handled now or never."""
        return self._open.pop(node, _Open()).told


class Inbox:
    """Receives messages on execnet's threads, and handles them on the main one.

    :param services: the quarantine, the journal and the accounting hear before plugins do.
    :param show_progress: hears of each test that begins or ends, repeated or not.
    :param repeating: hears of repetitions, where tests are repeated; it tells of verdicts.
    """

    def __init__(
        self,
        config: pytest.Config,
        services: RunServices,
        held_back: HeldBack,
        show_progress: Callable[[WorkerController, Sequence[Told]], None],
        repeating: Repeating | None,
    ) -> None:
        self._config = config
        self._repeating = repeating
        self.show = services.show
        self._recorder = services.recorder
        self._held_back = held_back
        self._show_progress = show_progress
        self._account = services.accounting.hear
        self._screen = services.screen
        self._actions: deque[Callable[[], None]] = deque()
        self.dispatch: Dispatch | None = None
        self._handlers: dict[type[object], Callable[[WorkerController, Any], None]] = {
            ItemBegins: self._begins,
            ItemStarted: lambda node, each: self._session.worker_logstart(node, *each),
            Reported: self._reported,
            ItemFinished: lambda node, each: self._session.worker_logfinish(node, *each),
            ItemComplete: lambda node, each: self._session.worker_runtest_protocol_complete(
                node, *each
            ),
        }
        if repeating is not None:
            repeating.tell = self._tell
            # The schedule knows of each repetition already.
            del self._handlers[ItemBegins], self._handlers[ItemComplete]

    # --- in any thread ---

    def add_line(self, line: str) -> None:
        """Show a line that a test wrote: between reports, not in the middle of one."""
        self.add(lambda: self.show(line))

    def add_told(self, node: WorkerController, told: Sequence[OfTests]) -> None:
        self.add(lambda: self._handle(node, told))

    def add(self, action: Callable[[], None]) -> None:
        self._actions.append(action)
        xdist_controller.call_on_main_loop(self._config, self.handle)

    # --- on the main thread ---

    def handle(self) -> None:
        while self._actions:
            self._actions.popleft()()
        if self.dispatch is not None:
            self.dispatch.act()

    def _handle(self, node: WorkerController, data: Sequence[OfTests]) -> None:
        told = self._held_back.pass_on(node, [self._with_report(each) for each in data])
        begun = self._held_back.begun(node)
        if begun is not None and self._recorder is not None:
            self._recorder.record(node.gateway.id, [begun])
        self._pass_on(node, told)

    def _with_report(self, told: OfTests) -> Told:
        if not isinstance(told, ItemReported):
            return told
        data = told.data if told.facts is None else {**told.data, "fkit": told.facts}
        return Reported(told.position, report_from(self._config, data))

    def _pass_on(self, node: WorkerController, told: Sequence[Told]) -> None:
        if self.dispatch is None:
            self.tell(node, told)
            return
        # All is decided first: a handler may poll, and re-enter this loop.
        for decided in list(self.dispatch.decided(node, told)):
            if isinstance(decided, Retry):
                self.dispatch.retry(node, decided)
            else:
                self.tell(node, decided)

    def lost(self, node: WorkerController, again: bool) -> None:
        """A worker is gone.

        :param again: whether the test that it told of last is run again, so that what was held
            back of it is discarded.
        """
        begun, told = self._held_back.begun(node), self._held_back.release(node)
        if not again:
            self._pass_on(node, told)
        elif begun is not None and self._recorder is not None:
            self._recorder.forget(node.gateway.id, begun.nodeid)

    def tell(self, node: WorkerController, told: Sequence[Told]) -> None:
        """Have plugins hear what a worker told of tests, or those who repeat them."""
        self._show_progress(node, told)
        if self._repeating is not None:
            self._repeating.hear(node, told)
        else:
            self._tell(node, told)

    def _tell(self, node: WorkerController, told: Sequence[Told]) -> None:
        if self._screen is not None:
            for each in told:
                if isinstance(each, Reported):
                    self._screen(each.report)
        if self._recorder is not None:
            self._recorder.record(node.gateway.id, told)
        self._account(node, told)
        for each in told:
            handler = self._handlers.get(type(each))
            if handler is not None:
                handler(node, each)

    @functools.cached_property
    def _session(self) -> DSession:
        return xdist_controller.dist_session(self._config)

    def _begins(self, node: WorkerController, begins: ItemBegins) -> None:
        if self.dispatch is not None:
            self.dispatch.begins(node, begins.position)

    def _reported(self, node: WorkerController, reported: Reported) -> None:
        report = reported.report
        self._session.worker_testreport(node, report)
        if self.dispatch is not None and death_of(report):
            self.dispatch.died(report.nodeid)
