"""Each selected test has one verdict in the end, or an error that says why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Generator, Sequence

import pytest

from ...compat import xdist_controller
from ...config.settings import ALONE
from ...own import own_builtins, time
from ...protocol.border import ItemAttempt, ItemBegins, ItemComplete, Reported, Told
from ...protocol.endings import Lost, to_wire
from ..schedule.collected import Collected
from ..workers.death_texts import DeathText
from .ledger import Ledger, Wrong
from .usual import Usual

if TYPE_CHECKING:
    from ...journal.recorder import Recorder

own_builtins(globals())

_ONLY_SETUP = "its setup was reported, its call was not"
_TWICE = "it has more than one verdict; the other ones are reported, too"


class Accounting:
    """Plugin of the controller, and of pytest itself at ``-n0``.

    It makes no errors in a run that was stopped.

    :param recorder: hears of all tests before plugins do, if there is one.
    """

    def __init__(self, config: pytest.Config, recorder: Recorder | None) -> None:
        self._config = config
        self._recorder = recorder
        self._each = config.getoption("dist", "no") == "each"
        self._ledgers: dict[object, Ledger] = {}
        self._collected: dict[Any, Collected] = {}
        self._workers: dict[tuple[object, int], str] = {}
        self._usual = Usual()
        self.unrunnable: Callable[[str], str] = lambda _: ""
        """Says why nobody could run a test, or ""."""
        self.blamed: Callable[[], tuple[str, int] | None] = lambda: None
        """The test that the last worker which died was running, as by Ledger.number."""

    # --- what happens ---

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        """Take in what a worker collected; mostly that is what all others did."""
        self._collected[node] = self._ledger(node).add(ids)

    def select(self, nodeids: Sequence[str]) -> None:
        """The same at ``-n0``."""
        self._collected[None] = self._ledger(None).add(nodeids)

    def _ledger(self, node: Any) -> Ledger:
        # With --dist=each every place has verdicts of its own; whoever replaces a worker has it.
        place = id(node.gateway.spec) if self._each and node is not None else None
        if place not in self._ledgers:
            self._ledgers[place] = Ledger(not self._config.getoption("setuponly", False))
        return self._ledgers[place]

    def hear(self, node: Any, told: Sequence[Told]) -> None:
        """Take in what plugins are told.

        :param node: None at ``-n0``.
        """
        collected = self._collected.get(node)
        if collected is None:
            return
        ledger = self._ledger(node)
        for each in told:
            if isinstance(each, Reported):
                self._usual.take(each.report)
                ledger.reported(collected.number(each.position), each.report)
            elif isinstance(each, ItemBegins):
                ledger.begins(collected.number(each.position))
            elif isinstance(each, ItemComplete):
                number = collected.number(each.position)
                ledger.complete(number)
                if node is not None:
                    self._workers[id(ledger), number] = node.gateway.id

    @pytest.hookimpl(optionalhook=True, trylast=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any) -> None:
        """That is the verdict, unless pytest-rerunfailures has the test run again."""
        self._usual.complete(report)
        ledger = self._ledger(report.node)
        if report.outcome != "rerun":
            nodeid, occurrence = self.blamed() or (crashitem, 0)
            ledger.final(ledger.number(nodeid, occurrence))

    # --- the end ---

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """When all is through, report what is missing."""
        result = yield
        if session.shouldfail or session.shouldstop or self._config.option.collectonly:
            return result
        # Where nothing ran and something is wrong, the collection was refused, and is reported.
        gave_up = xdist_controller.xdist_gave_up(self._config)
        nothing = all(ledger.is_empty for ledger in self._ledgers.values())
        if nothing and session.testsfailed and not gave_up:
            return result
        for ledger in self._ledgers.values():
            for wrong in ledger.wrong():
                self._report(ledger, wrong, gave_up)
        return result

    def _report(self, ledger: Ledger, wrong: Wrong, gave_up: str) -> None:
        if wrong.twice or wrong.complete:
            text = _text(_TWICE if wrong.twice else _ONLY_SETUP)
            reports = [_made(wrong.nodeid, "teardown", "failed", text)]
            self._record(self._workers.get((id(ledger), wrong.number), ALONE), reports, text)
        else:  # a journal has no verdict on it: who resumes the run, runs it
            reason = gave_up or self.unrunnable(wrong.nodeid) or "no worker ran it"
            text = _text(
                f"not run: {reason}",
                ". The reports on tests whose worker died tell more; --max-worker-restart=N lets "
                "more workers take the places of dead ones",
            )
            reports = [
                _made(wrong.nodeid, "setup", "failed", text),
                _made(wrong.nodeid, "teardown", "passed", None),
            ]
        self._log(reports)

    def _record(self, worker: str, reports: Sequence[pytest.TestReport], text: DeathText) -> None:
        if self._recorder is not None:
            told = [Reported(-1, report) for report in reports]
            lost = lost_facts(to_wire(Lost(str(text.message))))
            nodeid = reports[0].nodeid
            self._recorder.take(worker, [*told, ItemAttempt(nodeid, lost, 0, again=False)])

    def _log(self, reports: Sequence[pytest.TestReport]) -> None:
        hook: Any = self._config.hook
        nodeid, location = reports[0].nodeid, reports[0].location
        hook.pytest_runtest_logstart(nodeid=nodeid, location=location)
        for report in reports:
            self._usual.complete(report)
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=nodeid, location=location)


def _text(message: str, more: str = "") -> DeathText:
    text = DeathText(message + more)
    text.message = message
    return text


def _made(nodeid: str, when: Any, outcome: Any, longrepr: Any) -> pytest.TestReport:
    path, _, name = nodeid.partition("::")
    location = (path, None, name.replace("::", "."))
    return pytest.TestReport(nodeid, location, {}, outcome, longrepr, when)


def lost_facts(ending: tuple[Any, ...]) -> dict[str, Any]:
    """What is known of an attempt of which nobody lived to tell; see Attempt.facts."""
    return {
        "start": time.time(), "phases": (), "wide": (), "ending": ending, "pid": 0, "used": (),
        "shared": "", "metrics": {}, "leftovers": (),
    }  # fmt: skip
