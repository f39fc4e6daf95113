"""The pytest plugin of a test process: what pytest reports goes into the event file."""

from __future__ import annotations

from typing import Any, Generator, Iterator, cast

import pytest

from ...compat.pytest_hooks import note_implementers
from ...compat.pytest_reports import expected_failure, keep_objects, report_to_data
from ...own import contextmanager, os, own_builtins, time
from ...protocol.descriptors import slots, write_all
from ...protocol.event_file import (
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
)
from ...protocol.interruptions import interruption
from ...protocol.messages import Message
from ...protocol.plain_values import carriable
from ...protocol.wire import Packer
from ...system.limits import MEMORY, room, status_of
from ...system.stack_texts import stack_text
from .excerpts import shortened

own_builtins(globals())

_TOLERANCE = 1.0
"""Seconds by which the duration in a report may differ from what we measure."""

LEAVES = 83
"""Exit status of a child that left a Leaves frame."""

CHANNEL_LOST = 86
"""Exit status of a test process whose event file the test had closed."""

DEAF = 90
"""The same of a process that did not get all that the one above it said."""

UNREPORTED = {
    LEAVES: "it did not say for which wide fixture it left",
    DEAF: "it did not get all that the process above it said",
    CHANNEL_LOST: "it closed the descriptor by which its reports are sent",
}


class Relay:
    """Implements the reporting hooks in keeper, hosts and children, where nobody else hears them.

    Every process that is to report calls :meth:`open` first.

    :param open_fates: whether the controller may have a test run again elsewhere after a GPU error.
    """

    def __init__(self, session: pytest.Session, open_fates: bool = False) -> None:
        self._session = session
        self._open_fates = open_fates
        self._failed_before = 0
        self._met_gpu_error = False
        self._config = session.config
        self._keeps_objects = not hasattr(session.config, "workerinput") and not (
            session.config.pluginmanager.hasplugin("fkit-spawned")
        )
        self._subtests = self._config.pluginmanager.hasplugin("subtests")
        self._pid = -1
        self._packer = Packer()
        self._inode = -1
        self._flags: dict[str, object] = {}
        self._wide_setup_seconds = 0.0
        self._began = self._seconds = 0.0
        self.muted = False
        self.phase = ""
        self.lost = 0
        """Exit status if the reports did not get through, else 0."""
        self.interrupted = False
        note_implementers(session.config)

    def open(self, wide_setup_seconds: float = 0.0) -> None:
        """Report for this process.

        :param wide_setup_seconds: time the host spent for this test, part of its setup.
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
        """Whether this is a process that a test forked, not the one that runs the test."""
        return self._pid not in (-1, os.getpid())

    def send(self, message: Message) -> None:
        """Write one frame, unless the event file is not ours any more."""
        # A process that does not report yet, the keeper, may be warned while it is prepared.
        if self.muted or self._pid == -1 or self.is_copy():
            return
        if self._size() is None:
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

    def written(self) -> int:
        """Bytes in the event file, 0 if it is not ours any more."""
        return self._size() or 0

    def _size(self) -> int | None:
        try:
            # A test may have closed the descriptor, and a file of its own may have the number now.
            status = os.fstat(slots.events)
        except OSError:
            return None
        return status.st_size if status.st_ino == self._inode else None

    def enter(self, phase: str) -> None:
        """Announce the phase the test is in from now on."""
        self.phase = phase
        self._began, self._seconds = time.monotonic(), 0.0
        self.announce()

    def announce(self) -> None:
        """Say that what follows is of this phase, which may have begun in another process."""
        self.send(Phase(self.phase, time.time()))

    def leave(self) -> None:
        """The phase is over; its report is still to be made."""
        self._seconds = time.monotonic() - self._began

    def interrupt(self, error: BaseException) -> None:
        """Relay what stops the run."""
        self.interrupted = True
        self.send(interruption(error))

    def metric(self, name: str, value: str | bool | float | None) -> None:
        """Relay what the test measured, or that it took it back."""
        self.send(Metric(name, value))

    def junit_record(self, kind: str, name: str, value: object) -> None:
        """Relay what a fixture adds to the JUnit file."""
        self.send(JunitRecord(kind, carriable(str(name)), carriable(str(value))))

    def send_flags(self) -> None:
        """Relay that the run is to stop, if somebody said so since the last time."""
        for name, before in self._flags.items():
            value = getattr(self._session, name)
            if value and value != before:
                self._flags[name] = value
                self.send(SessionFlag(name, str(value)))

    # --- hooks ---

    @pytest.hookimpl
    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Relay."""
        self._failed_before = self._session.testsfailed
        self._met_gpu_error = False
        self.send(LogStart(str(nodeid), carriable(location)))

    @pytest.hookimpl
    def pytest_runtest_logfinish(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Relay."""
        if self._met_gpu_error:
            # Whether it failed is not known yet.
            self._session.testsfailed = self._failed_before
        self.send_flags()
        self.send(LogFinish(str(nodeid), carriable(location)))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(
        self, report: pytest.TestReport
    ) -> Generator[None, object, object]:
        """Relay; after the session, which counts failures and may set shouldfail."""
        if self._open_fates and report.failed and hasattr(report, "fkit_gpu_error"):
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
        """Within the block: -x and --maxfail don't stop anything."""
        option = self._config.option
        maxfail, option.maxfail = option.maxfail, 0
        try:
            yield
        finally:
            option.maxfail = maxfail

    def _relay(self, report: pytest.TestReport) -> None:
        if type(report) is pytest.TestReport:
            self._mend_duration(report)
        hooks = self._config.hook
        if self._subtests:
            # In plain pytest the terminal asks; with failed subtests, which were counted in this
            # process, the answer turns the report on the whole test into a failure.
            hooks.pytest_report_teststatus(config=self._config, report=report)
        self.send(Report(self._data(report)))
        if not self._open_fates:  # else at the end of the test
            self.send_flags()

    def _mend_duration(self, timed: Any) -> None:
        """Make the duration of a phase's call, or of its report, what it is for the user.

        Where the clock that pytest read was frozen, or moved, meanwhile: by a clock of ours. What
        the host set up for the test is part of its setup.
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
        self, item: pytest.Item, call: Any
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Relay at once what pytest-rerunfailures holds back: the process may die before."""
        self._mend_duration(call)
        report = yield
        if hasattr(item, "execution_count"):
            self.send(HeldReport(self._data(report)))
        return report

    def _data(self, report: pytest.TestReport) -> dict[str, Any]:
        try:
            data = report_to_data(self._config, report)
        except Exception as error:  # noqa: BLE001 (of what the test has patched, or of a plugin)
            data = _bare_data(report, error)
        for name in ("sections", "user_properties"):
            # Something else if the test has replaced ``list``, which makes them.
            if not isinstance(data.get(name, ()), (list, tuple)):
                data[name] = []
        data["sections"] = [
            (name, shortened(content)) for name, content in merged(data.get("sections", ()))
        ]
        data = cast("dict[str, Any]", carriable(data))
        if self._keeps_objects:
            keep_objects(self._session, report, data)
        return data

    @pytest.hookimpl
    def pytest_warning_recorded(
        self,
        warning_message: Any,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        """Relay, by the class's name: the worker has the class if the test process has it."""
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
        """Announce the phase, and marks that the test gives itself."""
        __tracebackhide__ = True
        self.enter("setup")
        self._watch_marks(item)
        try:
            return (yield)
        finally:
            self.leave()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Announce the phase."""
        __tracebackhide__ = True
        self.enter("call")
        try:
            return (yield)
        finally:
            self.leave()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        """Announce the phase."""
        __tracebackhide__ = True
        self.enter("teardown")
        try:
            return (yield)
        finally:
            self.leave()

    # --- implementation ---

    def _watch_marks(self, item: pytest.Item) -> None:
        add_marker = item.add_marker

        def watched(marker: Any, append: bool = True) -> None:
            add_marker(marker, append)
            if getattr(marker, "name", marker) == "xfail":
                # If the test dies now, the worker can't know of this mark otherwise.
                reason = expected_failure(item)
                if reason is not None:
                    self.send(ExpectedFailure(reason))

        item.add_marker = watched  # type: ignore[method-assign]


def _bare_data(report: pytest.TestReport, error: Exception) -> dict[str, Any]:
    """A report that can't be made plain values: its verdict, and why there is no more of it.

    In plain pytest nobody asks for that, and the verdict stands.

    :raises Exception: `error`, where the report is not of pytest's own class.
    """
    if type(report) is not pytest.TestReport:
        raise error
    text = f"pytest-fkit: what pytest says of this can't be carried: {stack_text(error)}"
    kept = ("location", "outcome", "when", "duration", "start", "stop", "wasxfail")
    return {
        "$report_type": "TestReport",
        "nodeid": report.nodeid,
        "keywords": {},
        "longrepr": None if report.outcome == "passed" else text,
        "user_properties": [],
        **{name: value for name, value in vars(report).items() if name in kept},
    }


def merged(sections: Any) -> list[tuple[str, str]]:
    """Sections with those of one name joined.

    The host's part of a phase and the child's are one for the user, as in plain pytest.
    """
    joined: dict[tuple[str, int], str] = {}
    for number, (name, content) in enumerate(sections, 1):
        captured = name.startswith("Captured ")
        key = (name, 0 if captured else number)
        before = joined.get(key)
        # pytest strips the log.
        newline = "\n" if before and name.startswith("Captured log") else ""
        joined[key] = (before or "") + newline + content
        log = (f"Captured log {name.rpartition(' ')[2]}", 0)
        if captured and before is None and key != log and log in joined:
            joined[log] = joined.pop(log)  # comes after what was printed, as in plain pytest
    return [(name, content) for (name, _), content in joined.items()]
