"""Replays in the worker, where plugins hear it, what a test process reported."""

from __future__ import annotations

from typing import Callable, Mapping, Sequence

import pytest

from ...compat.foreign_warnings import warning_again
from ...compat.pytest_reports import has_xfail
from ...gpu.slices.ownership import ids_in
from ...own import own_builtins, time, warnings
from ...protocol.endings import ITS_END
from ...protocol.event_file import (
    Artifacts,
    Completed,
    EndError,
    ExpectedFailure,
    Figure,
    HeldReport,
    Interrupted,
    JunitRecord,
    LiveText,
    LogFinish,
    LogStart,
    Metric,
    NotCollected,
    Phase,
    Report,
    ReportData,
    SessionFlag,
    SharedProcess,
    WarningRecorded,
    WideOutput,
    WideSetup,
    WideSetupDone,
    WideTeardown,
    add_facts,
    facts_in,
)
from ...protocol.messages import Ended, Message, Output, Restarted
from ...protocol.plain_values import carriable
from ...protocol.repetitions import HASH_SEED
from ...sandbox.process.excerpts import merged
from ..needs_of_tests import note_wanted_gpus
from .attempt_events import AttemptRecorder
from .makereport import made_by_hooks, refused
from .reports import KeptFolder, Reports, add_section, merge_outcome
from .terminal_output import LIVE, Lines

own_builtins(globals())

_KEPT = 65536
"""Characters of output that is not captured."""


class Replay:
    """Replays one test, from its first message to its ending.

    Holds the teardown report back until it is known whether the process ended well and which wide
    fixtures were torn down after the test.

    :param shared: why the test does not have a process of its own, or "".
    :param attempt: gets all messages, for a journal, if there is one.
    :param changed: the variables in which the test's process differs from its worker.
    :param artifacts: the folder of the test, "" if it has none yet.
    :param wrapped: whether another program runs its process.
    """

    def __init__(
        self,
        item: pytest.Item,
        reports: Reports,
        lines: Lines,
        shared: str = "",
        attempt: AttemptRecorder | None = None,
        changed: Mapping[str, str] | None = None,
        artifacts: str = "",
        wrapped: bool = False,
    ) -> None:
        self.item = item
        self.wrapped = wrapped
        self._folder = KeptFolder(artifacts)
        self.changed = changed or {}
        self._reports = reports
        self._lines = lines
        self._shared = shared
        self._attempt = attempt
        self._started = False
        self._finished = False
        self.has_died = False
        """Whether a report says that the process of the test died."""
        self._seconds = 0.0
        self._held: list[ReportData] = []
        self._unlogged: list[ReportData] = []
        self._attempts_over = 0
        self._outcomes: dict[str, str] = {}  # of the test's own phases
        self._completed: Completed | None = None
        self.phase = "setup"
        self.phase_began = time.time()
        self._sections: list[tuple[str, str]] = []
        self._wide_sections: list[tuple[str, str]] = []
        self._junit_records: list[JunitRecord] = []
        self.setting_up: WideSetup | None = None
        self.expected: str | None = None
        self.interrupted: Interrupted | None = None
        self.metrics: dict[str, Figure] = {}
        self.error_output = ""
        self._end_errors: list[str] = []

    def handle(self, message: Message) -> None:
        """Act on one message."""
        if self._attempt is not None:
            self._attempt.handle(message)
        handler = _HANDLERS.get(type(message))
        if handler is not None:
            handler(self, message)

    # --- messages ---

    def printed(self, message: Output) -> None:
        """Keep the end of what went to descriptor 2, where it is not captured."""
        if message.fd == 2:
            text = self.error_output + message.text.decode("utf-8", "replace")
            self.error_output = text[-_KEPT:]

    def _log_start(self, message: LogStart) -> None:
        del message
        if self._finished:  # another attempt, by pytest-rerunfailures
            self._log_end()
            self._started = self._finished = False
            self._outcomes.clear()
        self.start()

    def _log_finish(self, message: LogFinish) -> None:
        del message
        self._finished = True
        self._attempts_over += 1

    @property
    def attempts(self) -> int:
        """How many times the test has begun in this process."""
        return self._attempts_over + (not self._finished)

    def _held_report(self, message: HeldReport) -> None:
        self._unlogged.append(message.report.data)

    def log_complete_phases(self, death: ReportData) -> None:
        """Log the reports that the test process held back, on phases before the one it died in."""
        for data in self._unlogged:
            if data["when"] != death["when"]:
                data["rerun"] = death.get("rerun", 0)
                if data["outcome"] == "failed":
                    data["outcome"] = death["outcome"]
                self.log(data)

    def _phase(self, message: Phase) -> None:
        self.phase, self.phase_began = message.name, message.time

    def _report(self, message: Report) -> None:
        data = message.whole()
        if data.get("$report_type") == "TestReport":  # not on a subtest
            self._outcomes[data["when"]] = data["outcome"]
        self._hear_gpu_error(data)
        self._unlogged.clear()
        when = data.get("when")
        if when == "setup":
            self.release()  # the teardown of an attempt before, where a plugin runs it again
        if when == "teardown" or self._held:
            self._held.append(data)
        else:
            self.log(data)

    def _hear_gpu_error(self, data: ReportData) -> None:
        error = facts_in(data).gpu_error
        if error is not None and data["outcome"] != "rerun":  # by pytest-rerunfailures, already
            self._reports.gpu_error(self.item, error)

    def _warning(self, message: WarningRecorded) -> None:
        said = warning_again(message)
        recorded = warnings.WarningMessage(said, type(said), message.filename, message.lineno)
        self.item.config.hook.pytest_warning_recorded.call_historic(
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
        """Merge the teardown of wide fixtures into the test's teardown report."""
        told = None if message.report is None else message.report.whole()
        marked = told is not None and has_xfail(self.item)
        if told is not None and told["outcome"] == "failed":
            self._hear_gpu_error(told)
            if self.expected is not None and not marked:
                # By a mark that its process set, of which the host of the fixtures does not know.
                told = {**told, "outcome": "skipped", "wasxfail": self.expected}
        data = next((each for each in reversed(self._held) if _is_teardown(each)), None)
        if data is not None:
            data["duration"] += message.duration
            data["sections"] = merged([*data["sections"], *message.sections])
            if told is not None:
                expected = marked or self.expected is not None
                merge_outcome(self.item.config, data, told, expected)
        elif told is not None:
            self._held.append(told)

    def _expected(self, message: ExpectedFailure) -> None:
        self.expected = message.reason

    def _flag(self, message: SessionFlag) -> None:
        session = self.item.session
        if not getattr(session, message.name):
            setattr(session, message.name, message.value)

    def _live_text(self, message: LiveText) -> None:
        self.start()  # the child that said so may have left for a wide fixture to be set up
        self._lines.feed_text(LIVE, message.text)

    def _shared_process(self, message: SharedProcess) -> None:
        self._shared = message.cause

    def _junit_record(self, message: JunitRecord) -> None:
        self._junit_records.append(message)

    def _not_collected(self, message: NotCollected) -> None:
        self.refuse(message.reason)

    def refuse(self, text: str, skipped: bool = False) -> None:
        """Report a test that can't be run as an error, with the reason, or as skipped."""
        self.log(made_by_hooks(self.item, refused(self.item, text, skipped), text))

    def _metric(self, message: Metric) -> None:
        self.metrics.pop(message.name, None)
        if message.value is not None:
            self.metrics[message.name] = message.value

    def _made_artifacts(self, message: Artifacts) -> None:
        self._folder.path = message.path

    def _interrupted(self, message: Interrupted) -> None:
        self.interrupted = message

    def _end_error(self, message: EndError) -> None:
        self._end_errors.append(message.text)

    def _restarted(self, message: Restarted) -> None:
        del message
        self._outcomes.clear()

    def _over(self, message: Completed) -> None:
        self._completed = message

    # --- endings ---

    def has_said(self, when: str) -> bool:
        """Whether the report on a phase of this attempt has arrived."""
        return when in self._outcomes

    def missing(self) -> str:
        """Which reports should have arrived by the end of the test and have not, "" if none."""
        if self._completed is None:
            return ITS_END
        if not self._completed.by_pytest or self.interrupted is not None:
            return ""
        runs = not self.item.config.getoption("setuponly", False)
        wanted = ["setup", "teardown"]
        if runs and self._outcomes.get("setup") == "passed":
            wanted.insert(1, "call")
        return " and ".join(when for when in wanted if when not in self._outcomes)

    def held_teardown_failed(self) -> ReportData | None:
        """The teardown report that is held back, if it is a failed one."""
        failed = (each for each in self._held if _is_teardown(each) and each["outcome"] == "failed")
        return next(failed, None)

    def name_leftovers(self, ended: Ended) -> None:
        """Name what a test left behind in its teardown report, which is held back."""
        if ended.leftovers:
            still = [f"{line}, still there, with GPUs open" for line in ended.hold_gpus]
            lines = [*ended.leftovers, *still]
            self._name("processes left running, now ended", "leftovers", lines)
        if ended.gpu_memory:
            self._name("GPU memory not given back", "gpu_memory", ended.gpu_memory)

    def _name(self, title: str, name: str, lines: Sequence[str]) -> None:
        for data in filter(_is_teardown, self._held):
            carried = tuple(map(carriable, lines))
            add_facts(data, **{name: carried})
            add_section(data, title, "".join(f"{line}\n" for line in carried))

    def drop_teardown(self) -> None:
        """Drop the teardown report that is held back: another one takes its place."""
        for data in filter(_is_teardown, self._held):
            self._sections = list(data["sections"])
        self._held = [each for each in self._held if not _is_teardown(each)]

    def sections(self) -> list[tuple[str, str]]:
        """The captured output reported so far."""
        return self._sections or self._wide_sections

    def release(self) -> None:
        """Log the reports that were held back."""
        held, self._held = self._held, []
        for data in held:
            self.log(data)

    def log(self, data: ReportData) -> None:
        """Log one report, after the start of the test if that was not logged yet."""
        self.start()
        if not _is_teardown(data):
            self._sections = list(data.get("sections", ()))
        elif self._shared or self._end_errors:
            add_facts(data, shared=self._shared, end_errors=tuple(self._end_errors))
            self._end_errors = []
        gpus = ids_in(self.changed)
        if gpus is not None:
            add_facts(data, gpus=gpus)
        if HASH_SEED in self.changed:
            add_facts(data, fresh=True)
        note_wanted_gpus(self.item, data, self.changed)
        self._folder.name_in(data)
        if self._junit_records:
            add_facts(data, junit=tuple(self._junit_records))
            self._junit_records = []
        self._seconds += data.get("duration", 0.0)
        self._reports.log_report(self.item, data)

    def start(self) -> None:
        """Log the start of the test, if it was not logged yet."""
        if not self._started:
            self._started = True
            self._reports.log_start(self.item)

    def finish(self, again: bool = False) -> None:
        """Log the rest and the end of the test.

        :param again: whether another attempt follows.
        """
        if self._attempt is not None and self._started and self.interrupted is None:
            self._reports.attempt(self.item, self._attempt.facts(len(self._held), again))
        self._log_end()
        self._folder.settle()
        if not again:
            self._reports.complete(self.item, self._seconds)

    def _log_end(self) -> None:
        self.release()
        if self._started:
            self._reports.log_finish(self.item)


def _is_teardown(data: ReportData) -> bool:
    return data.get("when") == "teardown"


_HANDLERS: dict[type[object], Callable[..., None]] = {
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
    Completed: Replay._over,
    EndError: Replay._end_error,
    Metric: Replay._metric,
    Artifacts: Replay._made_artifacts,
    Restarted: Replay._restarted,
    SharedProcess: Replay._shared_process,
    NotCollected: Replay._not_collected,
}
