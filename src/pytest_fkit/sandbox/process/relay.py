"""The reporting plugin of test processes: writes what pytest reports to the event file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Generator, Iterator

import pytest

from ...compat import pytest_reports
from ...compat.pytest_hooks import is_loaded
from ...compat.sound_reports import sound_data
from ...config.settings import read
from ...own import contextmanager, os, own_builtins, suppress, time
from ...protocol.descriptors import slots, write_all, write_last_words
from ...protocol.event_file import (
    Artifacts,
    ExpectedFailure,
    HeldReport,
    JunitRecord,
    LogFinish,
    LogStart,
    Metric,
    Phase,
    Report,
    SessionFlag,
    WarningRecorded,
    facts_of,
)
from ...protocol.interruptions import interruption, is_of_pytest
from ...protocol.messages import Message
from ...protocol.plain_values import carriable
from ...protocol.wire import Packer
from ...system.limits import MEMORY, room, status_of
from .excerpts import look_for_sanitizers, merged, shortened

if TYPE_CHECKING:
    import warnings

own_builtins(globals())

_TOLERANCE = 1.0
"""Seconds by which the duration in a report may differ from our own measurement."""

LEAVES = 83
"""Exit status of a child whose last frame is Leaves."""

CHANNEL_LOST = 86
"""Exit status of a test process whose event file the test had closed."""

DEAF = 90
"""Exit status of a process that missed a message of the process above it."""

FAILED = 70
"""Exit status (EX_SOFTWARE) of a process whose role, or pytest, failed; stderr says how."""

UNREPORTED = {
    LEAVES: "it did not say for which wide fixture it left",
    DEAF: "it did not get all that the process above it said",
    CHANNEL_LOST: "it closed the descriptor by which its reports are sent",
    FAILED: "pytest itself failed in it, see its stderr",
}


class Relay:
    """Implements the reporting hooks in keeper, hosts and children, instead of other plugins.

    Every process that reports calls :meth:`open` first.

    :param may_retry: whether the controller may retry a test after a GPU or network error.
    """

    def __init__(self, session: pytest.Session, may_retry: bool = False) -> None:
        self._session = session
        self._may_retry = may_retry
        self._failed_before = 0
        self._met_gpu_error = False
        self._made: object = None
        self._config = session.config
        self._keeps_objects = not hasattr(session.config, "workerinput") and not (
            session.config.pluginmanager.hasplugin("fkit-spawned")
        )
        # Fresh interpreters have no settings, but the options.
        self._fails_by_sanitizers = read(self._config, "fkit_sanitizer_reports") == "fail"
        self._subtests = is_loaded(self._config, "subtests")
        self._has_subtests = False
        self._pid = -1
        self._packer = Packer()
        self._inode = -1
        self._flags: dict[str, object] = {}
        self._wide_setup_seconds = 0.0
        self._began = self._seconds = 0.0
        self.muted = False
        self.on_phase: Callable[[], None] = lambda: None
        """Called before a phase, and before something is written for the report on a death."""
        self.on_phase_end: Callable[[], None] = lambda: None
        """Called after a phase."""
        self.phase = ""
        self.lost = 0
        """Exit status if the reports did not get through, else 0."""
        self.interrupted = False

    def open(self, wide_setup_seconds: float = 0.0) -> None:
        """Start to report for this process.

        :param wide_setup_seconds: time that the host spent on wide fixtures for this test, which
            is added to its setup.
        """
        if self._pid != os.getpid():
            self._pid, self._packer = os.getpid(), Packer()
        self._inode = os.fstat(slots.events).st_ino
        self._flags = {"shouldstop": self._session.shouldstop, "shouldfail": False}
        self._wide_setup_seconds = wide_setup_seconds
        self.muted = self.interrupted = False
        self.lost = 0

    @property
    def stops(self) -> bool:
        """Whether the run is to stop."""
        return bool(self.interrupted or self._session.shouldstop or self._session.shouldfail)

    def is_copy(self) -> bool:
        """Whether this process was forked by a test, and is not the one that runs the test."""
        return self._pid not in (-1, os.getpid())

    def send(self, message: Message) -> None:
        """Write one frame to the event file; record in :attr:`lost` if that is impossible."""
        # The keeper, which does not report, may get a warning while it is set up.
        if self.muted or self._pid == -1 or self._pid != os.getpid():
            return
        if self.size() is None:
            self.lost = CHANNEL_LOST
            return
        try:
            try:
                frame = self._packer.pack(message)
            except MemoryError:
                with room(*MEMORY):
                    frame = self._packer.pack(message)
            write_all(slots.events, frame)
        except (OSError, MemoryError) as error:
            self.lost = status_of(error, 0)
            if not self.lost:
                raise

    def size(self) -> int | None:
        """Bytes in the event file, None if a test has closed it."""
        try:
            # A test may have closed the descriptor, and another file may have its number now.
            status = os.fstat(slots.events)
        except OSError:
            return None
        return status.st_size if status.st_ino == self._inode else None

    def enter(self, phase: str) -> None:
        """Begin a phase of the test, and announce it unless reports on an earlier one are lost."""
        self.on_phase()
        self.phase = phase
        self._began, self._seconds = time.monotonic(), 0.0
        if not self.lost:
            self.send(Phase(phase, time.time()))

    def announce(self) -> None:
        """Announce the current phase, which may have begun in another process."""
        self.send(Phase(self.phase, time.time()))

    def leave(self) -> None:
        """End the phase, whose report is made later."""
        self.on_phase_end()
        self._seconds = time.monotonic() - self._began

    def interrupt(self, error: BaseException) -> None:
        """Relay an exception that stops the run, unless the test broke pytest in its process."""
        if is_of_pytest(error):
            self.lost = self.lost or status_of(error, FAILED)
            self.on_phase()
            write_last_words(error)
            return
        self.interrupted = True
        self.send(interruption(error))

    def metric(self, name: str, value: str | bool | float | None) -> None:
        """Relay a value of the test's ``fkit_metrics``, None if the test has removed it."""
        self.send(Metric(name, value))

    def artifacts(self, path: str) -> None:
        """Relay that the test has a folder of its own."""
        self.send(Artifacts(carriable(path)))

    def junit_record(self, kind: str, name: str, value: object) -> None:
        """Relay an entry for the JUnit file."""
        self.send(JunitRecord(kind, carriable(str(name)), carriable(str(value))))

    def send_flags(self) -> None:
        """Relay shouldstop and shouldfail if they were set since the last call."""
        for name, before in self._flags.items():
            value = getattr(self._session, name)
            if value and value != before:
                self._flags[name] = value
                self.send(SessionFlag(name, str(value)))

    # --- hooks ---

    @pytest.hookimpl
    def pytest_runtest_logstart(self) -> None:
        self._failed_before = self._session.testsfailed
        self._met_gpu_error = self._has_subtests = False
        self.send(LogStart())

    @pytest.hookimpl
    def pytest_runtest_logfinish(self) -> None:
        if self._met_gpu_error:
            # It may be retried, so it does not count as failed yet.
            self._session.testsfailed = self._failed_before
        self.send_flags()
        self.send(LogFinish())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(
        self, report: pytest.TestReport
    ) -> Generator[None, object, object]:
        """Relay the report, after the session has counted failures and maybe set shouldfail."""
        if self._may_retry and report.failed and facts_of(report).gpu_error is not None:
            self._met_gpu_error = True
        if self._met_gpu_error:
            with self._not_counting():
                result = yield
        else:
            result = yield
        if not self.is_copy():
            self._relay(report)
        return result

    @contextmanager
    def _not_counting(self) -> Iterator[None]:
        """Within the block, -x and --maxfail have no effect."""
        option = self._config.option
        maxfail, option.maxfail = option.maxfail, 0
        try:
            yield
        finally:
            option.maxfail = maxfail

    def _relay(self, report: pytest.TestReport) -> None:
        if type(report) is pytest.TestReport and report is not self._made:
            self._correct_duration(report)
        self._has_subtests = self._has_subtests or type(report) is not pytest.TestReport
        if self._subtests and self._has_subtests:
            pytest_reports.fail_for_subtests(self._config, report)
        self.send(self._report(report))
        if not self._may_retry:  # else at the end of the test
            self.send_flags()

    def _correct_duration(self, timed: pytest.CallInfo[None] | pytest.TestReport) -> None:
        """Correct the duration of a phase's call, or of its report.

        If the clock that pytest reads was frozen or moved meanwhile, take our own measurement. Add
        the time that the host spent on wide fixtures for this test to its setup.
        """
        if timed.when == self.phase and self._seconds:
            most = time.monotonic() - self._began + _TOLERANCE
            if not self._seconds - _TOLERANCE <= timed.duration <= most:
                timed.duration = self._seconds
        if timed.when == "setup" and self._wide_setup_seconds:
            timed.duration += self._wide_setup_seconds
            self._seconds += self._wide_setup_seconds
            self._began -= self._wide_setup_seconds
            self._wide_setup_seconds = 0.0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Relay at once reports that pytest-rerunfailures holds back, in case the process dies."""
        self._correct_duration(call)
        try:
            report = yield
        except BaseException:
            self.on_phase()
            _put_back(item, call.when)  # since it is in no report
            raise
        if report.sections:
            look_for_sanitizers(report, self._fails_by_sanitizers)
        self._made = report  # a plugin may have changed its duration
        if hasattr(item, "execution_count"):
            self.send(HeldReport(self._report(report)))
        return report

    def _report(self, report: pytest.TestReport) -> Report:
        data = sound_data(self._config, report, self._seconds)
        if data["sections"]:
            data["sections"] = [
                (name, shortened(content)) for name, content in merged(data["sections"])
            ]
        data = carriable(data)
        if self._keeps_objects:
            pytest_reports.keep_objects(self._session, report, data)
        return Report(data, data.pop("fkit", None))

    @pytest.hookimpl
    def pytest_warning_recorded(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        """Relay the warning with the name of its class, which the worker can import, too."""
        message = warning_message.message
        category = type(message) if isinstance(message, Warning) else warning_message.category
        args = carriable(message.args) if isinstance(message, Warning) else None
        self.send(
            WarningRecorded(
                (category.__module__, category.__qualname__),
                args,
                carriable(str(message)),
                str(warning_message.filename),
                int(warning_message.lineno),
                when,
                str(nodeid),
                carriable(location),
            )
        )

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Announce the phase, and watch for marks that the test adds to itself."""
        __tracebackhide__ = True
        self.enter("setup")
        self._watch_marks(item)
        try:
            return (yield)
        finally:
            self.leave()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        __tracebackhide__ = True
        self.enter("call")
        try:
            return (yield)
        finally:
            self.leave()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        __tracebackhide__ = True
        self.enter("teardown")
        try:
            return (yield)
        finally:
            self.leave()

    # --- implementation ---

    def _watch_marks(self, item: pytest.Item) -> None:
        add_marker = item.add_marker

        def watched(marker: str | pytest.MarkDecorator, append: bool = True) -> None:
            add_marker(marker, append)
            if getattr(marker, "name", marker) == "xfail":
                # If the test dies, the worker could not know of this mark otherwise.
                reason = pytest_reports.expected_failure(item)
                if reason is not None:
                    self.send(ExpectedFailure(reason))

        item.add_marker = watched  # type: ignore[method-assign]


def _put_back(item: pytest.Item, when: str) -> None:
    """Write what pytest has captured in a phase to this process's own files."""
    for phase, stream, content in item._report_sections:
        slot = {"stdout": slots.out, "stderr": slots.err}.get(stream)
        if phase == when and slot is not None:
            with suppress(OSError):
                write_all(slot, content.encode("utf-8", "replace"))
