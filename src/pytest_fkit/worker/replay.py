"""What a test process reported, said again in the worker, where plugins hear it."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import pytest

from ..foreign_warnings import stand_in
from ..messages import (
    ExpectedFailure,
    HeldReport,
    Interrupted,
    JunitRecord,
    LiveText,
    LogFinish,
    LogStart,
    Message,
    Phase,
    Report,
    SessionFlag,
    SharedProcess,
    WarningRecorded,
    WideOutput,
    WideSetup,
    WideSetupDone,
    WideTeardown,
)
from .output import LIVE, Lines


class Replay:
    """The reports of one test, from its first message to its ending.

    The teardown report is held back until it is known whether the process ended well and which
    wide fixtures were torn down after the test.
    """

    def __init__(self, item: pytest.Item, lines: Lines, shared: str = "") -> None:
        self._item = item
        self._lines = lines
        self._shared = shared
        self._hooks: Any = item.ihook
        self._started = False
        self._finished = False
        self._held: list[Any] = []
        self._unlogged: list[Any] = []
        self._attempts_over = 0
        self.phase = "setup"
        self.phase_began = time.time()
        self._sections: list[tuple[str, str]] = []
        self._wide_sections: list[tuple[str, str]] = []
        self._junit_records: list[tuple[str, str, str]] = []
        self.setting_up: WideSetup | None = None
        self.expected: str | None = None
        self.interrupted: Interrupted | None = None

    def take(self, message: Message) -> None:
        """Take one message in."""
        handler = _HANDLERS.get(type(message))
        if handler is not None:
            handler(self, message)

    # --- messages ---

    def _log_start(self, message: LogStart) -> None:
        if self._finished:  # another attempt, by pytest-rerunfailures
            self.finish()
            self._started = self._finished = False
        if not self._started:
            self._started = True
            self._hooks.pytest_runtest_logstart(nodeid=message.nodeid, location=message.location)

    def _log_finish(self, message: LogFinish) -> None:
        del message
        self._finished = True
        self._attempts_over += 1

    @property
    def attempts(self) -> int:
        """How often the test began in this process."""
        return self._attempts_over + (not self._finished)

    def _held_report(self, message: HeldReport) -> None:
        self._unlogged.append(self.report_from(message.data))

    def log_complete_phases(self, death: Any) -> None:
        """Log what the test process held back on phases before that of the report on its death."""
        for report in self._unlogged:
            if report.when != death.when:
                report.rerun = getattr(death, "rerun", 0)
                if report.failed:
                    report.outcome = death.outcome
                self.log(report)

    def _phase(self, message: Phase) -> None:
        self.phase, self.phase_began = message.name, message.time

    def _report(self, message: Report) -> None:
        report = self.report_from(message.data)
        self._unlogged.clear()
        if report.when == "setup":
            self.release()  # the teardown of a run before this one, by a plugin that runs it again
        if report.when == "teardown" or self._held:
            self._held.append(report)
        else:
            self.log(report)

    def _warning(self, message: WarningRecorded) -> None:
        said = _warning(message)
        recorded = warnings.WarningMessage(said, type(said), message.filename, message.lineno)
        self._item.config.hook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": recorded,
                "when": message.when,
                "nodeid": message.nodeid,
                "location": message.location,
            }
        )

    def _wide_setup(self, message: WideSetup) -> None:
        self.setting_up = message

    def _wide_setup_done(self, message: WideSetupDone) -> None:
        del message
        self.setting_up = None

    def _wide_output(self, message: WideOutput) -> None:
        self._wide_sections += message.sections

    def wide_teardown(self, message: WideTeardown) -> None:
        """Make the teardown of wide fixtures part of the test's teardown report."""
        failed = self.report_from(message.report) if message.report is not None else None
        report = next((each for each in reversed(self._held) if each.when == "teardown"), None)
        if report is None:
            if failed is not None:
                self._held.append(failed)
            return
        report.duration += message.duration
        report.sections.extend(message.sections)
        if failed is None:
            return
        if report.failed:
            report.sections.append(("teardown of wide fixtures", str(failed.longrepr)))
        else:
            report.outcome, report.longrepr = failed.outcome, failed.longrepr

    def _expected(self, message: ExpectedFailure) -> None:
        self.expected = message.reason

    def _flag(self, message: SessionFlag) -> None:
        session = self._item.session
        if not getattr(session, message.name):
            setattr(session, message.name, message.value)

    def _live_text(self, message: LiveText) -> None:
        self.start()  # the process that said so may have left to have a wide fixture set up
        self._lines.feed_text(LIVE, message.text)

    def _shared_process(self, message: SharedProcess) -> None:
        self._shared = message.cause

    def _junit_record(self, message: JunitRecord) -> None:
        self._junit_records.append((message.kind, message.name, message.value))

    def _interrupted(self, message: Interrupted) -> None:
        self.interrupted = message

    # --- endings ---

    def held_teardown_failed(self) -> Any | None:
        """The teardown report that is held back, if it is a failed one."""
        return next((each for each in self._held if each.when == "teardown" and each.failed), None)

    def name_leftovers(self, processes: list[str]) -> None:
        """Name processes that the test left running in its teardown report, which is held back."""
        for report in self._held:
            if report.when == "teardown":
                text = "".join(f"{line}\n" for line in processes)
                report.sections.append(("processes left running, now ended", text))
                report.fkit_leftovers = processes

    def drop_teardown(self) -> None:
        """Forget the teardown report that is held back: something else takes its place."""
        for report in self._held:
            if report.when == "teardown":
                self._sections = list(report.sections)
        self._held = [each for each in self._held if each.when != "teardown"]

    def sections(self) -> list[tuple[str, str]]:
        """What was captured so far, as far as it was reported."""
        return self._sections or self._wide_sections

    def release(self) -> None:
        """Log the reports that were held back."""
        held, self._held = self._held, []
        for report in held:
            self.log(report)

    def log(self, report: Any) -> None:
        """Log one report, after the start of the test if it did not get to say so."""
        self.start()
        if report.when != "teardown":
            self._sections = list(report.sections)
        elif self._shared:
            report.fkit_shared = self._shared
        if self._junit_records:
            report.fkit_junit, self._junit_records = self._junit_records, []
        self._hooks.pytest_runtest_logreport(report=report)

    def start(self) -> None:
        """Log the start of the test, if it did not do so yet."""
        if not self._started:
            self._log_start(LogStart(self._item.nodeid, self._item.location))

    def finish(self) -> None:
        """Log the rest and the end of the test."""
        self.release()
        if self._started:
            self._hooks.pytest_runtest_logfinish(
                nodeid=self._item.nodeid, location=self._item.location
            )

    def report_from(self, data: dict[str, Any]) -> Any:
        """The report in the format of pytest_report_to_serializable."""
        config = self._item.config
        return config.hook.pytest_report_from_serializable(config=config, data=data)


_HANDLERS: dict[type[Any], Any] = {
    LogStart: Replay._log_start,
    LogFinish: Replay._log_finish,
    Phase: Replay._phase,
    Report: Replay._report,
    HeldReport: Replay._held_report,
    WarningRecorded: Replay._warning,
    WideSetup: Replay._wide_setup,
    WideSetupDone: Replay._wide_setup_done,
    WideOutput: Replay._wide_output,
    WideTeardown: Replay.wide_teardown,
    ExpectedFailure: Replay._expected,
    SessionFlag: Replay._flag,
    Interrupted: Replay._interrupted,
    JunitRecord: Replay._junit_record,
    LiveText: Replay._live_text,
    SharedProcess: Replay._shared_process,
}


def _warning(message: WarningRecorded) -> Warning:
    """The warning again, of its own class where that can be made to say the same."""
    category = _warning_class(*message.category)
    if message.args is not None:
        try:
            again = category(*message.args)
            if str(again) == message.text:
                return again
        except Exception:  # noqa: BLE001 (a user's __init__ or __str__ may raise anything)
            return stand_in(category.__name__)(message.text)
    return stand_in(category.__name__)(message.text)


def _warning_class(module: str, qualname: str) -> type[Warning]:
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    if isinstance(found, type) and issubclass(found, Warning):
        return found
    return stand_in(qualname.rpartition(".")[2])  # made inside a function, or imported by the test
