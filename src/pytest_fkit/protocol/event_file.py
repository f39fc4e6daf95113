"""What a test process tells the worker, through its event file."""

from __future__ import annotations

from typing import Any, NamedTuple, Union

from ..own import own_builtins

own_builtins(globals())


class Begins(NamedTuple):
    """One of the tests of a :class:`RunTogether` begins: the one at `position`."""

    position: int


class LogStart(NamedTuple):
    """pytest_runtest_logstart."""

    nodeid: str
    location: tuple[str, int | None, str]


class LogFinish(NamedTuple):
    """pytest_runtest_logfinish."""

    nodeid: str
    location: tuple[str, int | None, str]


class Report(NamedTuple):
    """pytest_runtest_logreport, as pytest_report_to_serializable gives it."""

    data: dict[str, Any]


class HeldReport(NamedTuple):
    """A :class:`Report` that pytest-rerunfailures logs when all phases are over."""

    data: dict[str, Any]


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

    :param report: a failed teardown report, or None.
    :param start: seconds since the epoch.
    """

    duration: float
    sections: tuple[tuple[str, str], ...]
    report: dict[str, Any] | None
    start: float


class ExpectedFailure(NamedTuple):
    """The test marked itself xfail while it ran."""

    reason: str


class SessionFlag(NamedTuple):
    """``session.shouldstop`` or ``session.shouldfail`` was set."""

    name: str
    value: str


class Interrupted(NamedTuple):
    """KeyboardInterrupt ("interrupt"), pytest.exit ("exit") or an error in a hook ("internal")."""

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


class JunitRecord(NamedTuple):
    """The test added a "property" of the test suite to the JUnit file, or its own "attribute"."""

    kind: str
    name: str
    value: str


class Metric(NamedTuple):
    """The test set one of its ``fkit_metrics``, or deleted it (None)."""

    name: str
    value: str | bool | int | float | None


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
    """

    by_pytest: bool


TestEvent = Union[
    Begins, LogStart, LogFinish, Report, HeldReport, WarningRecorded, Phase,
    WideSetup, WideSetupDone, WideOutput, WideTeardown,
    ExpectedFailure, SessionFlag, Interrupted, LiveText, SharedProcess, JunitRecord,
    Metric, Used, UsedBefore, Measured, PluginState, EndError, SessionFinished, WorkerOutput,
    Leaves, NotCollected, Completed,
]  # fmt: skip
