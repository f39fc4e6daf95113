"""What a test process tells the worker, through its event file."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple, Union

from ..named_tuple import NamedTuple
from ..own import own_builtins

own_builtins(globals())

ReportData = Dict[str, Any]
"""A report as pytest_report_to_serializable gives it, or the attributes of a report."""

Location = Tuple[str, Optional[int], str]
"""Where a test is, as pytest says it: path, line and name."""

Figure = Union[str, bool, int, float]
"""A value of ``fkit_metrics``."""


NETWORK = "network"
"""The category of errors of the network."""

OF_MACHINE = "host"
"""The category of exhausted memory, shared memory and file systems of a machine."""


class GpuError(NamedTuple):
    """A failure that may be the GPU's, the network's or the machine's.

    :param category: name of one of the categories of error_table.py, or NETWORK.
    :param text: the line of the message that says so.
    :param counts: whether it counts against the slice.
    :param probe: whether the slice is to be probed before its next test.
    :param poisons: whether the process in which it was raised is unfit for other tests.
    :param retry: whether the test gets another attempt.
    :param alone: whether that attempt must not share its GPU.
    :param event: equal for failures that come from one error in a cached fixture, else "".
    :param doubtful: whether it may be the test's own fault as well as the device's: an Xid decides.
    :param gpus: ids of those of the test's GPUs that it names.
    """

    category: str
    text: str
    counts: bool = False
    probe: bool = False
    poisons: bool = False
    retry: bool = True
    alone: bool = False
    event: str = ""
    doubtful: bool = False
    gpus: tuple[str, ...] = ()


class JunitRecord(NamedTuple):
    """The test added a "property" of the test suite to the JUnit file, or its own "attribute"."""

    kind: str
    name: str
    value: str


class Quarantined(NamedTuple):
    """A failure that does not count.

    :param reason: why not.
    :param text: of the report, as it was; `message`: the one line of it.
    """

    reason: str
    text: str
    message: str


class ReportFacts(NamedTuple):
    """What we say in one of pytest's reports, as its attribute ``fkit``.

    :param gpu_error: that the test met.
    :param objects: pickles of attributes that plain values can't carry, by name.
    :param death: how the process of the test ended, in a line, if it died.
    :param worker: on which it died.
    :param crash: the report on that in parts, a CrashReport's (crash_report.py).
    :param core: where its core is.
    :param no_core: why none was kept, where they are to be.
    :param artifacts: the folder of the test, if there is something in it.
    :param sanitizers: what sanitizers reported in its phase, in a few words each.
    :param leftovers: descriptions of processes that had to be ended.
    :param gpu_memory: what the driver did not count as free again.
    :param shared: why the test shared a process.
    :param end_errors: what was raised at the end of its process.
    :param gpus: ids of those that the test saw, None for those of its worker.
    :param wanted_gpus: how many it wanted, if it skipped itself because it saw fewer.
    :param junit: what the test recorded.
    :param attempts: how many there were on different workers.
    :param failed_after: the attempts before this one, which failed after such an error.
    :param passed_after: the same if this one passed.
    :param resumed: whether it is the verdict of an earlier run.
    :param quarantined: if it was a failure, and does not count.
    :param fresh: whether it is on a repetition in a fresh interpreter.
    :param repeated: the verdict on all repetitions, a RepeatResult's (journal/rates.py).
    :param made: whether pytest_runtest_makereport did not make or complete it, but we.
    :param failed_subtests: how many subtests failed, if it is a failure for these only.
    """

    gpu_error: GpuError | None = None
    objects: tuple[tuple[str, bytes], ...] = ()
    death: str = ""
    worker: str = ""
    crash: tuple[Any, ...] = ()
    core: str = ""
    no_core: str = ""
    artifacts: str = ""
    sanitizers: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    gpu_memory: tuple[str, ...] = ()
    shared: str = ""
    end_errors: tuple[str, ...] = ()
    gpus: tuple[str, ...] | None = None
    wanted_gpus: int = 0
    junit: tuple[JunitRecord, ...] = ()
    attempts: int = 1
    failed_after: str = ""
    passed_after: str = ""
    resumed: bool = False
    made: bool = False
    quarantined: Quarantined | None = None
    fresh: bool = False
    repeated: tuple[Any, ...] = ()
    failed_subtests: int = 0


NO_FACTS = ReportFacts()


def facts_of(report: object) -> ReportFacts:
    """What we say in a report."""
    return _facts(getattr(report, "fkit", NO_FACTS))


def _facts(found: Any) -> ReportFacts:
    # xdist's serialiser, which carries reports on collectors, leaves a tuple of the fields.
    return found if isinstance(found, ReportFacts) else ReportFacts(*found)


def facts_in(data: ReportData) -> ReportFacts:
    """The same for a report in the format of pytest_report_to_serializable."""
    return _facts(data.get("fkit", NO_FACTS))


def add_facts(data: ReportData, **facts: object) -> None:
    """Say more in a report, given in that format, or by its attributes."""
    data["fkit"] = facts_in(data)._replace(**facts)  # type: ignore[arg-type]


class Begins(NamedTuple):
    """One of the tests of a :class:`RunTogether` begins: the one at `position`."""

    position: int


class LogStart(NamedTuple):
    """pytest_runtest_logstart."""


class LogFinish(NamedTuple):
    """pytest_runtest_logfinish."""


class Report(NamedTuple):
    """pytest_runtest_logreport.

    :param data: as pytest_report_to_serializable gives it, without our attribute.
    :param facts: that attribute, None where there is none.
    """

    data: ReportData
    facts: ReportFacts | None = None

    def whole(self) -> ReportData:
        """The data with the attribute."""
        if self.facts is not None:
            self.data["fkit"] = self.facts
        return self.data


class HeldReport(NamedTuple):
    """A :class:`Report` that pytest-rerunfailures logs when all phases are over."""

    report: Report


class WarningRecorded(NamedTuple):
    """pytest_warning_recorded; `category` is the module and name of the class."""

    category: tuple[str, str]
    args: tuple[Any, ...] | None
    text: str
    filename: str
    lineno: int
    when: str
    nodeid: str
    location: tuple[str, int, str] | None


class Phase(NamedTuple):
    """The test enters "setup", "call", "teardown" or "exit" at `time`, seconds since the epoch."""

    name: str
    time: float


class WideSetup(NamedTuple):
    """A wide fixture is about to be set up in this process (`key` as in :class:`Broken`).

    :param time: seconds since the epoch.
    """

    key: str
    label: str
    time: float


class WideSetupDone(NamedTuple):
    """The wide fixture of the last :class:`WideSetup` is set up, or raised, at `time`."""

    time: float


class WideOutput(NamedTuple):
    """What was printed and logged while the host set wide fixtures up for the test."""

    sections: tuple[tuple[str, str], ...]


class WideTeardown(NamedTuple):
    """Wide fixtures were torn down after the test.

    :param report: a teardown report, None if it passed.
    :param start: seconds since the epoch.
    """

    duration: float
    sections: tuple[tuple[str, str], ...]
    report: Report | None
    start: float


class ExpectedFailure(NamedTuple):
    """The test marked itself xfail while it ran."""

    reason: str


class SessionFlag(NamedTuple):
    """``session.shouldstop`` or ``session.shouldfail`` was set."""

    name: str
    value: str


class Interrupted(NamedTuple):
    """KeyboardInterrupt ("interrupt"), pytest.exit ("exit"), pytest.UsageError ("usage") or another
    error in a hook ("internal") stops the run.
    """

    kind: str
    text: str
    returncode: int | None
    path: str
    lineno: int


class LiveText(NamedTuple):
    """What a live log or ``--setup-show`` writes to the terminal."""

    text: str


class SharedProcess(NamedTuple):
    """The test runs in the process of its host, because of what a wide fixture left there."""

    cause: str


class Metric(NamedTuple):
    """The test set one of its ``fkit_metrics``, or deleted it (None)."""

    name: str
    value: Figure | None


class Artifacts(NamedTuple):
    """The test has made a folder of its own."""

    path: str


class Used(NamedTuple):
    """What a test used in process `pid`, which runs others, too.

    :param used: the fields of a Usage (sandbox/child/usage.py).
    """

    pid: int
    used: tuple[Any, ...]


class UsedBefore(NamedTuple):
    """What a process that runs several tests had used when this one began; see :class:`Used`.

    If it dies, :class:`.messages.Ended` says what it used in all its life.
    """

    used: tuple[Any, ...]


class Measured(NamedTuple):
    """What coverage.py counted in this process since the last of these.

    :param arcs: whether it counts pairs of lines, not lines.
    :param contexts: what was run, by context and path.
    :param tracers: the coverage plugin that measured it, if one did, by path.
    """

    arcs: bool
    contexts: dict[str, dict[str, tuple[Any, ...]]]
    tracers: dict[str, str]


class PluginState(NamedTuple):
    """What a plugin keeps in memory until the end of the session, in its format.

    :param plugin: "benchmark", "stash", "syrupy", or a name of compat/kept_values.py.
    """

    plugin: str
    data: Any


class EndError(NamedTuple):
    """What was raised in a process's part of what pytest does at the end of the session.

    Plain pytest shows it after all else, and exits with status 1.
    """

    text: str


class SessionFinished(NamedTuple):
    """These plugins, by name, were told in the process that the session is over.

    :param exitstatus: the status that they set, None if they left it.
    """

    plugins: tuple[str, ...]
    exitstatus: int | None = None


class WorkerOutput(NamedTuple):
    """What was put into ``config.workeroutput`` in the process."""

    values: dict[str, Any]


class Leaves(NamedTuple):
    """The child leaves so that the host sets the wide fixture `argname` up.

    :param unsafe: if not "", the host is to run the test itself: this was found in the child.
    """

    argname: str
    unsafe: str = ""


class NotCollected(NamedTuple):
    """The fresh interpreter that was to run the test did not collect it."""

    reason: str


class Completed(NamedTuple):
    """The last frame of a test that finished.

    :param by_pytest: whether pytest itself ran the test, and so reports on each phase; another
        plugin's pytest_runtest_protocol reports what it likes.
    :param may_free_gpus: whether the end of the process may free memory of GPUs.
    """

    by_pytest: bool
    may_free_gpus: bool = True


TestEvent = Union[
    Begins, LogStart, LogFinish, Report, HeldReport, WarningRecorded, Phase,
    WideSetup, WideSetupDone, WideOutput, WideTeardown,
    ExpectedFailure, SessionFlag, Interrupted, LiveText, SharedProcess, JunitRecord,
    Metric, Artifacts, Used, UsedBefore, Measured, PluginState, EndError, SessionFinished,
    WorkerOutput, Leaves, NotCollected, Completed,
]  # fmt: skip
