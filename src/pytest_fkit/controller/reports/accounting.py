"""Makes sure that each selected test has exactly one verdict, or an error that says why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generator, Iterator, Literal, Mapping, Protocol, Sequence

import pytest

from ...compat import xdist_controller
from ...config.settings import ALONE
from ...named_tuple import NamedTuple
from ...own import own_builtins, time
from ...protocol.border import ItemAttempt, ItemBegins, ItemComplete, Reported, Told
from ...protocol.endings import Lost
from ..schedule.collected import Collected, CollectedTests
from .report_attributes import CommonAttributes, DeathText, death_text

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from ...journal.recorder import Recorder

own_builtins(globals())

_ONLY_SETUP = "its setup was reported, its call was not"
_TWICE = "it has more than one verdict; the other ones are reported, too"

_REPORTED, _DECIDED, _COMPLETE, _FINAL, _TWO_FINAL, _BEGUN = (1 << bit for bit in range(6))
_OVER = _FINAL | _TWO_FINAL


class Wrong(NamedTuple):
    """A test that does not have exactly one verdict.

    :param complete: whether its worker was through with it, though reports are missing.
    """

    number: int
    nodeid: str
    complete: bool
    twice: bool


class Ledger:
    """Counts the verdicts of tests, by what was reported; a node id may belong to several tests.

    :param calls: whether a test whose setup passed is called; not with ``--setup-only``.
    """

    def __init__(self, calls: bool = True) -> None:
        self._calls = calls
        self._tests = CollectedTests()
        self._flags = bytearray()

    def add(self, ids: Sequence[str]) -> Collected:
        collected = self._tests.add(ids)
        self._flags.extend(bytes(len(self._tests.nodeids) - len(self._flags)))
        return collected

    def begins(self, number: int) -> None:
        """An attempt begins: reports on one before it are no verdict."""
        self._flags[number] = self._flags[number] & _OVER | _BEGUN

    def reported(self, number: int, report: pytest.TestReport) -> None:
        # By pytest-rerunfailures, and on a subtest.
        if str(report.outcome) == "rerun" or hasattr(report, "context"):
            return
        decided = report.when not in ("setup", "teardown") or report.outcome != "passed"
        self._flags[number] |= _REPORTED | (_DECIDED if decided else 0)

    def complete(self, number: int) -> None:
        """The worker is through with the test, which another plugin may have run unreported."""
        flags = self._flags[number]
        self._flags[number] |= _COMPLETE
        if flags & _DECIDED or not flags & _REPORTED or not self._calls:
            self.final(number)

    def final(self, number: int) -> None:
        self._flags[number] |= _TWO_FINAL if self._flags[number] & _FINAL else _FINAL

    def number(self, nodeid: str, occurrence: int) -> int:
        """The number of the test that is at this place among those with its node id."""
        found = -1
        for _ in range(occurrence + 1):
            found = self._tests.nodeids.index(nodeid, found + 1)
        return found

    @property
    def is_empty(self) -> bool:
        return not any(flags & ~_BEGUN for flags in self._flags)

    def unfinished(self) -> Iterator[tuple[str, bool]]:
        """Node ids of the tests that have no verdict, and whether they have begun."""
        for nodeid, flags in zip(self._tests.nodeids, self._flags):
            if not flags & _OVER:
                yield nodeid, bool(flags & _BEGUN)

    def wrong(self) -> Iterator[Wrong]:
        for number, flags in enumerate(self._flags):
            if flags & _OVER != _FINAL:
                complete, twice = bool(flags & _COMPLETE), bool(flags & _TWO_FINAL)
                yield Wrong(number, self._tests.nodeids[number], complete, twice)


class Scheduler(Protocol):
    """Who distributes the tests to workers, for those who hear of them."""

    numnodes: int
    """How many workers the run begins with."""

    @property
    def unrunnable(self) -> Mapping[str, str]:
        """Why nobody could run a test, by node id."""
        ...

    @property
    def blamed_test(self) -> tuple[str, int] | None:
        """Node id of the test that the last worker to die was running, and which one of these."""
        ...

    def tell_held(self) -> None:
        """No other attempt is going to be made: those that are held are verdicts."""

    def begins(self, node: WorkerController, position: int) -> None:
        """A worker begins the test at a position of its collection."""

    def mark_test_complete(
        self, node: WorkerController, item_index: int, duration: float = 0.0
    ) -> None:
        """A worker is through with the test at a position."""


class Accounting:
    """Plugin of the controller, and of pytest itself at ``-n0``.

    It makes no errors in a run that was stopped.

    :param recorder: the journal's, if there is one; it hears of reports before plugins do.
    """

    def __init__(self, config: pytest.Config, recorder: Recorder | None) -> None:
        self._config = config
        self._recorder = recorder
        self._each = config.getoption("dist", "no") == "each"
        self._ledgers: dict[object, Ledger] = {}
        self._collected: dict[WorkerController, Collected] = {}
        self._workers: dict[tuple[object, int], str] = {}
        self._common = CommonAttributes()
        self.dispatch: Scheduler | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(
        self, node: WorkerController, ids: Sequence[str]
    ) -> None:
        self._collected[node] = self._ledger(node).add(ids)

    def select(self, nodeids: Sequence[str]) -> None:
        """Add what was collected at ``-n0``."""
        self._collected[None] = self._ledger(None).add(nodeids)

    def _ledger(self, node: WorkerController) -> Ledger:
        # With --dist=each each worker makes verdicts of its own; a replacement shares its spec.
        place = id(node.gateway.spec) if self._each and node is not None else None
        if place not in self._ledgers:
            self._ledgers[place] = Ledger(not self._config.getoption("setuponly", False))
        return self._ledgers[place]

    def hear(self, node: WorkerController, told: Sequence[Told]) -> None:
        """Account for what plugins are about to hear.

        :param node: None at ``-n0``.
        """
        collected = self._collected.get(node)
        if collected is None:
            return
        ledger = self._ledger(node)
        for each in told:
            if isinstance(each, Reported):
                self._common.learn(each.report)
                ledger.reported(collected.number(each.position), each.report)
            elif isinstance(each, ItemBegins):
                ledger.begins(collected.number(each.position))
            elif isinstance(each, ItemComplete):
                number = collected.number(each.position)
                ledger.complete(number)
                if node is not None:
                    self._workers[id(ledger), number] = node.gateway.id

    def complete_report(self, report: pytest.TestReport) -> None:
        """Give a report that was made here what plugins add to all others."""
        self._common.complete(report)

    @property
    def knows_tests(self) -> bool:
        return bool(self._ledgers)

    def unfinished(self) -> list[tuple[str, bool]]:
        """Node ids of the tests that have no verdict, and whether they have begun."""
        return [each for ledger in self._ledgers.values() for each in ledger.unfinished()]

    @pytest.hookimpl(optionalhook=True, trylast=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Count it as the verdict, unless pytest-rerunfailures has the test run again."""
        self._common.complete(report)
        ledger = self._ledger(report.node)
        if str(report.outcome) != "rerun":
            blamed = None if self.dispatch is None else self.dispatch.blamed_test
            nodeid, occurrence = blamed or (crashitem, 0)
            ledger.final(ledger.number(nodeid, occurrence))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        result = yield
        if session.shouldfail or session.shouldstop or self._config.option.collectonly:
            return result
        # If nothing ran though something is wrong, the collection was refused, and reported.
        gave_up = xdist_controller.xdist_gave_up(self._config)
        nothing_ran = all(ledger.is_empty for ledger in self._ledgers.values())
        if nothing_ran and session.testsfailed and not gave_up:
            return result
        if self.dispatch is not None:
            self.dispatch.tell_held()
        for ledger in self._ledgers.values():
            for wrong in ledger.wrong():
                self._report(ledger, wrong, gave_up)
        return result

    def _report(self, ledger: Ledger, wrong: Wrong, gave_up: str) -> None:
        if wrong.twice or wrong.complete:
            message = _TWICE if wrong.twice else _ONLY_SETUP
            text = death_text(wrong.nodeid, message, message)
            reports = [_report_on(wrong.nodeid, "teardown", "failed", text)]
            self._record(self._workers.get((id(ledger), wrong.number), ALONE), reports, text)
        else:  # not recorded: whoever resumes the run, runs the test
            unrunnable = {} if self.dispatch is None else self.dispatch.unrunnable
            reason = gave_up or unrunnable.get(wrong.nodeid, "no worker ran it")
            message = f"not run: {reason}"
            text = death_text(
                wrong.nodeid,
                f"{message}. The reports on tests whose worker died tell more; "
                "--max-worker-restart=N lets more workers take the places of dead ones",
                message,
            )
            reports = [
                _report_on(wrong.nodeid, "setup", "failed", text),
                _report_on(wrong.nodeid, "teardown", "passed", None),
            ]
        self._common.tell(self._config, wrong.nodeid, reports[0].location, reports)

    def _record(self, worker: str, reports: Sequence[pytest.TestReport], text: DeathText) -> None:
        if self._recorder is not None:
            attempt = lost_attempt(reports[0].nodeid, Lost(str(text.message)))
            self._recorder.record(worker, [*(Reported(-1, each) for each in reports), attempt])


def _report_on(
    nodeid: str,
    when: Literal["setup", "teardown"],
    outcome: Literal["passed", "failed"],
    longrepr: Any,
) -> pytest.TestReport:
    path, _, name = nodeid.partition("::")
    location = (path, None, name.replace("::", "."))
    return pytest.TestReport(nodeid, location, {}, outcome, longrepr, when)


def lost_attempt(nodeid: str, ending: Lost) -> ItemAttempt:
    """What the journal says of an attempt whose process left no record."""
    return ItemAttempt(nodeid, time.time(), ending)
