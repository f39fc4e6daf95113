"""The ways of reports on a worker's tests: to plugins of this process, to the controller."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Callable, Iterator, Protocol, Sequence

import pytest

from ...compat import pytest_hooks, xdist_worker
from ...compat.pytest_fixtures import groups_errors_of_teardown, skips_by_groups
from ...compat.pytest_reports import pass_until_shown, report_from, restore_objects
from ...config.settings import ALONE
from ...own import contextmanager, own_builtins
from ...protocol.border import (
    ItemAttempt,
    ItemBegins,
    ItemComplete,
    ItemFinished,
    ItemGpuError,
    ItemReported,
    ItemStarted,
    OfTests,
    Reported,
    Told,
)
from ...protocol.event_file import GpuError, ReportData, add_facts, facts_in
from ...protocol.plain_values import carriable
from ...protocol.whereabouts import Whereabouts
from ...system.paths import holds, remove_tree
from .deaths import text_with_message
from .rerunfailures import forget_subtests

if TYPE_CHECKING:
    from xdist.remote import WorkerInteractor

    from ...gpu.slices.ownership import Owned
    from ...journal.recorder import Recorder

own_builtins(globals())


def name_gpus(owned: Owned, worker: str, data: ReportData) -> None:
    """Name worker and GPUs in the report on a failure."""
    if data["outcome"] == "failed":
        section = owned.section(worker, data.get("rerun", 0), facts_in(data).gpus or ())
        add_section(data, *section)


def add_section(data: ReportData, title: str, text: str) -> None:
    """Add a section to a report in the format of pytest_report_to_serializable."""
    data["sections"] = [*data["sections"], (title, text)]


_BACKPORT = "exceptiongroup." if sys.version_info < (3, 11) else ""
_GROUP = f"{_BACKPORT}BaseExceptionGroup: errors during test teardown (2 sub-exceptions)"
"""The message where the two are of two nodes, see SetupState.teardown_exact of pytest."""


def merge_outcome(
    config: pytest.Config, data: ReportData, other: ReportData, expected: bool
) -> None:
    """Add to a report on a phase what another one says of a part of it, as pytest would do.

    :param expected: whether a mark of the test expects failures (xfail).
    """
    if other["outcome"] == "failed" and data["outcome"] == "failed":
        text = str(report_from(config, other).longrepr)
        add_section(data, "teardown of wide fixtures", text)
    elif other["outcome"] == "failed" or data["outcome"] == "passed":
        data.pop("wasxfail", None)
        names = ("outcome", "longrepr", "wasxfail")
        data.update({name: other[name] for name in names if name in other})
    elif data["outcome"] == "skipped" and not expected and groups_errors_of_teardown():
        both_skip = "wasxfail" not in data and "wasxfail" not in other
        if both_skip and skips_by_groups():
            return
        texts = [str(report_from(config, each).longrepr) for each in (data, other)]
        path, line, _ = data["location"]
        data.pop("wasxfail", None)
        longrepr = text_with_message("\n".join(texts), _GROUP, path, (line or 0) + 1)
        data.update(outcome="failed", longrepr=longrepr)


class Reports:
    """Takes the events of tests, in the order in which plugins are to hear them."""

    def are_awaited(self, config: pytest.Config) -> bool:
        """Whether no test may begin before the reports on the one before it were delivered.

        In a worker: if a test kills it, xdist blames the first whose reports have not arrived.
        """
        del config
        return True

    def begins(self, item: pytest.Item, position: int) -> None:
        """The test is about to begin; a death of this worker until it is complete is its fault.

        :param position: of the item, and which repetition it is.
        """

    def log_start(self, item: pytest.Item) -> None:
        """The test begins."""

    def log_report(self, item: pytest.Item, data: ReportData) -> None:
        """A report, as pytest_report_to_serializable gives it."""

    def log_finish(self, item: pytest.Item) -> None:
        """The test is over."""

    def attempt(self, item: pytest.Item, attempt: ItemAttempt) -> None:
        """An attempt is over, but for its last reports."""

    def gpu_error(self, item: pytest.Item, error: GpuError) -> None:
        """The test met an error."""

    def unexplained(self, item: pytest.Item, how: str) -> None:
        """The process of the test died, as `how` says, of an unknown cause: an Xid may tell."""

    def settle(self, over: bool = False) -> None:
        """Everything is known that decides whether the test is to run again elsewhere.

        :param over: no test is left.
        """

    def complete(self, item: pytest.Item, seconds: float) -> None:
        """The test has its final verdict, after so many seconds."""

    def flush(self) -> None:
        """Nothing may be held back any longer."""


class Account(Protocol):
    """Counts verdicts."""

    def select(self, nodeids: Sequence[str]) -> None:
        """Add the tests that are going to run."""

    def hear(self, node: None, told: Sequence[Told]) -> None:
        """Account for what plugins are about to hear."""


class LocalReports(Reports):
    """At ``-n0``: all plugins are in this process, and no other worker could run a test again.

    :param recorder: of the journal, if there is one; records everything before plugins hear it.
    :param owned: the GPUs of this process, if there are any.
    :param screen: changes a report before anybody has it, if given.
    """

    def __init__(
        self,
        recorder: Recorder | None = None,
        account: Account | None = None,
        items: Sequence[pytest.Item] = (),
        owned: Owned | None = None,
        screen: Callable[[pytest.TestReport], None] | None = None,
    ) -> None:
        self._screen = screen
        self._owned = owned
        self._recorder = recorder
        self._some_hear_in_tests: bool | None = None
        self._others_hear: bool | None = None
        self._account = account
        if account is not None:
            self._positions = {item: number for number, item in enumerate(items)}
            account.select([item.nodeid for item in items])

    def are_awaited(self, config: pytest.Config) -> bool:
        """Plugins that count failures may stop the run; all but two of pytest's only note them."""
        return bool(
            config.getoption("maxfail")
            or self._screen is not None
            or config.pluginmanager.hasplugin("stepwiseplugin")
            or pytest_hooks.others_hear_reports(config)
        )

    def begins(self, item: pytest.Item, position: int) -> None:
        if self._account is not None:
            self._positions[item] = position
            self._account.hear(None, [ItemBegins(position)])

    def log_start(self, item: pytest.Item) -> None:
        if self._recorder is not None:
            self._recorder.begin(ALONE, item.nodeid, item.location)
        self._tell(item, "pytest_runtest_logstart")

    def log_report(self, item: pytest.Item, data: ReportData) -> None:
        if self._owned is not None:
            name_gpus(self._owned, ALONE, data)
        report = report_from(item.config, data)
        restore_objects(item.session, report)
        if self._screen is not None:
            self._screen(report)
        if self._recorder is not None:
            self._recorder.report(ALONE, report)
            self._recorder.commit()
        if self._account is not None:
            self._account.hear(None, [Reported(self._positions[item], report)])
        pass_until_shown(item.config, report)
        if self._others_hear is None:
            self._others_hear = pytest_hooks.others_hear_reports(item.config)
        if not self._others_hear:
            item.ihook.pytest_runtest_logreport(report=report)
        else:
            with pytest_hooks.warnings_as_of(item):
                item.ihook.pytest_runtest_logreport(report=report)
        if data["outcome"] == "rerun":
            forget_subtests(item)

    def log_finish(self, item: pytest.Item) -> None:
        self._tell(item, "pytest_runtest_logfinish")

    def _tell(self, item: pytest.Item, name: str) -> None:
        """Call a hook of those plugins that did not hear of it in the test's process."""
        if self._some_hear_in_tests is None:
            self._some_hear_in_tests = pytest_hooks.hears_in_tests(item.config)
        some = self._some_hear_in_tests
        hook = pytest_hooks.reporters_hook(item, name) if some else getattr(item.ihook, name)
        hook(nodeid=item.nodeid, location=item.location)

    def attempt(self, item: pytest.Item, attempt: ItemAttempt) -> None:
        del item
        if self._recorder is not None:
            self._recorder.record(ALONE, [attempt])

    def complete(self, item: pytest.Item, seconds: float) -> None:
        if self._account is not None:
            self._account.hear(None, [ItemComplete(self._positions[item], seconds)])

    def flush(self) -> None:
        """Write the journal: a test that has begun may take a while."""
        if self._recorder is not None:
            self._recorder.commit()


class WorkerReports(Reports):
    """In a worker: reports go to the controller, many in one message.

    Plugins of the worker hear of them, too. As in xdist's own worker, a report is sent before the
    plugins behind xdist hear of it, any of which may end the process, and after those in front of
    it, which may change it.

    :param send: sends several messages to the controller as one.
    :param positions: by item, its position; the last repetition's if it is repeated.
    :param tells: whether plugins of this process hear of tests; not of repetitions, which are no
        verdicts.
    :param whereabouts: memory in which the controller sees which test runs, on the same machine.
    """

    def __init__(
        self,
        config: pytest.Config,
        send: Callable[..., object],
        interactor: WorkerInteractor,
        positions: dict[pytest.Item, int],
        whereabouts: Whereabouts | None = None,
        tells: bool = True,
    ) -> None:
        self._config = config
        self._tells = tells
        self._send = send
        self._extra = xdist_worker.worker_facts(interactor)
        self._positions = positions
        self._whereabouts = whereabouts
        self._events: list[OfTests] = []
        self._completed = -1
        self._position = -1
        self._local = LocalReports()
        self._others_hear = pytest_hooks.others_hear_reports(config)
        xdist_worker.take_reports_of_interactor(config, interactor, self._hear)
        self._pytests_hook = config.pluginmanager.subset_hook_caller(
            "pytest_runtest_logreport", [interactor]
        )
        self.silent = False
        """Whether to tell plugins of this process nothing."""

    @property
    def _heard(self) -> bool:
        return self._others_hear and self._tells and not self.silent

    def begins(self, item: pytest.Item, position: int) -> None:
        self._positions[item] = position
        self._events.append(ItemBegins(position))

    def log_start(self, item: pytest.Item) -> None:
        self._events.append(ItemStarted(item.nodeid, carriable(item.location)))
        if self._heard:
            with self._telling(item):
                self._local.log_start(item)

    def log_report(self, item: pytest.Item, data: ReportData) -> None:
        """Queue a report, by way of the plugins that hear reports here."""
        if not self._heard:
            counts = data.get("outcome") == "failed" and not facts_in(data).failed_subtests
            self._report(self._positions[item], data)
            if counts and self._tells and not self.silent:
                self.flush()  # pytest changes the data
                self._pytests_hook(report=report_from(self._config, data))
            return
        report = report_from(self._config, data)
        with self._telling(item), pytest_hooks.warnings_as_of(item):
            item.ihook.pytest_runtest_logreport(report=report)

    def _hear(self, report: pytest.TestReport) -> None:
        """Send a report, in the place of xdist's plugin."""
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._report(self._position, carriable(data))
        self.flush()

    def _report(self, position: int, data: ReportData) -> None:
        data.update(self._extra, item_index=position)
        self._events.append(ItemReported(position, data, data.pop("fkit", None)))

    @contextmanager
    def _telling(self, item: pytest.Item) -> Iterator[None]:
        """Within the block, let the controller see that plugins are being told of the test."""
        self._position = self._positions[item]
        if self._whereabouts is None:
            yield
            return
        self._whereabouts.tells(self._position)
        yield  # if that raises it is the end of the worker
        self._whereabouts.told()

    def log_finish(self, item: pytest.Item) -> None:
        self._events.append(ItemFinished(item.nodeid, carriable(item.location)))
        if self._heard:
            with self._telling(item):
                self._local.log_finish(item)

    def attempt(self, item: pytest.Item, attempt: ItemAttempt) -> None:
        del item
        self._events.append(attempt)

    def gpu_error(self, item: pytest.Item, error: GpuError) -> None:
        self._events.append(ItemGpuError(item.nodeid, error))

    def complete(self, item: pytest.Item, seconds: float) -> None:
        self._completed = self._positions[item]
        self._events.append(ItemComplete(self._completed, seconds))

    def flush(self) -> None:
        if self._events:
            events, self._events = self._events, []
            self._send(*events)
            if self._whereabouts is not None:
                self._whereabouts.ran(self._completed)


class KeptFolder:
    """The folder of one attempt at a test.

    :param path: "" if it has none yet.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._is_kept = False

    def name_in(self, data: ReportData) -> None:
        """Name it in a report that says that the test failed, if there is something in it."""
        if data["outcome"] not in ("failed", "rerun") or not holds(self.path):
            return
        self._is_kept = True
        path = carriable(self.path)
        add_facts(data, artifacts=path)
        add_section(data, "artifacts", f"{path}\n")

    def settle(self) -> None:
        """When all is reported: remove it, unless it is to be kept."""
        if self.path and not self._is_kept:
            remove_tree(self.path)
