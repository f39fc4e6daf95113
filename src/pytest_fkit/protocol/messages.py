"""What the processes of a run say to each other, as immutable values of built-in types."""

from __future__ import annotations

from typing import Any, NamedTuple, Union, get_args

from ..own import own_builtins

own_builtins(globals())

PATIENCE = 1.0
"""Seconds without an answer after which a :class:`Ping` is sent."""

# --- worker to keeper ---------------------------------------------------------------------------


class Run(NamedTuple):
    """Run one test.

    :param position: of the test in ``session.items``.
    :param next_position: of the test that runs after it in this worker, -1 for none.
    :param share: name of the process the test shares with others; "" gives it one of its own.
    :param next_share: the same for the next test.
    :param timeout: seconds from setup to teardown, 0 for no limit.
    :param wide_timeout: seconds for the setup or teardown of wide fixtures, 0 for no limit.
    :param memory_limit: bytes, 0 for no limit.
    :param tests_failed: failures this session has counted.
    :param location: of the test, which a fresh process would have to work out at some cost.
    :param attempts: how often the test was tried before, in processes that died.
    :param suite_reruns: how many tests were run again, where nobody else counts that.
    :param environ: variables in which the test's process differs from the worker, in pairs of name
        and text. Only tests with the same ones share a process or its wide fixtures.
    :param next_environ: the same for the next test.
    :param gpu_memory: bytes that have to be free on its GPUs before it begins, 0 for none.
    """

    position: int
    next_position: int
    share: str
    next_share: str
    timeout: float
    wide_timeout: float
    memory_limit: int
    tests_failed: int
    location: tuple[str, int | None, str] = ("", None, "")
    attempts: int = 0
    suite_reruns: int = 0
    environ: tuple[tuple[str, str], ...] = ()
    next_environ: tuple[tuple[str, str], ...] = ()
    gpu_memory: int = 0


class RunTogether(NamedTuple):
    """Run tests that share a process and have the same limits, one after the other.

    :param runs: the fields of a :class:`Run` each; none has a memory limit, or needs GPU memory.
    :param seconds: after which none of them is begun any more.
    """

    runs: tuple[tuple[Any, ...], ...]
    seconds: float


class Finish(NamedTuple):
    """Tear all wide fixtures down, end every host, then answer with :class:`TornDown`."""

    timeout: float


class Stop(NamedTuple):
    """Interrupt the running test, tear wide fixtures down, all within `grace` seconds."""

    grace: float


class Follows(NamedTuple):
    """Another test follows than was said with the last one; answered by an :class:`Ended`.

    :param next_position: of it, -1 if there is none for now.
    :param next_share: as in :class:`Run`.
    :param wide_timeout: as in :class:`Run`.
    """

    next_position: int
    next_share: str
    wide_timeout: float


class OrderAnew(NamedTuple):
    """Discard all queued orders; only those that follow count.

    The answer to an :class:`Ended` that does not go on: the worker may have ordered before it knew.
    """


class Ping(NamedTuple):
    """Answer with :class:`Pong`: nothing was heard for a while.

    If something was lost before, the answer shows it by its number. A host's gets no answer: its
    own number shows to the keeper what was lost.
    """


class Broken(NamedTuple):
    """Remember that setting up the wide fixture `key` killed a process, so nobody tries again."""

    key: str
    text: str


# --- keeper to worker ---------------------------------------------------------------------------


class Events(NamedTuple):
    """Frames as the process with this pid wrote them, to be decoded by the worker."""

    frames: bytes
    pid: int


class Output(NamedTuple):
    """What reached descriptor `fd` of a test whose output is not captured."""

    fd: int
    text: bytes


class Pong(NamedTuple):
    """The answer to :class:`Ping`."""


class Notice(NamedTuple):
    """What the user has to know, once."""

    text: str


class Restarted(NamedTuple):
    """The test process left to have a wide fixture set up; the test starts again."""


class HostFiles(NamedTuple):
    """The files of a host that runs tests itself travel along, to be there if the keeper dies."""

    share: str
    environ: tuple[tuple[str, str], ...]
    pid: int


class Ended(NamedTuple):
    """The test is over and so is everything it started.

    :param ending: as :func:`pytest_fkit.protocol.endings.to_wire` gives it.
    :param pid: of the process that ended, 0 if there was none.
    :param wide: "setup" or "teardown" if a wide fixture was being set up or torn down.
    :param out: uncollected standard output.
    :param err: uncollected standard error.
    :param log: uncollected log.
    :param dump: what faulthandler wrote.
    :param leftovers: descriptions of processes that had to be ended.
    :param survivors: descriptions of processes that not even SIGKILL ended.
    :param goes_on: whether the keeper begins what it was ordered ahead; not after a bad ending, or
        if the test said that the run is to stop.
    :param used: the fields of an Account (sandbox/child/usage.py), none where it was not measured.
    :param hold_gpus: descriptions of processes that could not be ended and have a GPU open.
    :param gpu_memory: what the driver did not count as free again, in words, for each GPU.
    """

    ending: tuple[Any, ...]
    pid: int = 0
    wide: str = ""
    out: bytes = b""
    err: bytes = b""
    log: bytes = b""
    dump: bytes = b""
    leftovers: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()
    goes_on: bool = False
    used: tuple[Any, ...] = ()
    hold_gpus: tuple[str, ...] = ()
    gpu_memory: tuple[str, ...] = ()


class TornDown(NamedTuple):
    """Everything is torn down and every host is gone.

    :param ending: of the host that tore down, Finished if all went well.
    :param leftovers: descriptions of processes that had to be ended.
    :param gpu_memory: as in :class:`Ended`.
    """

    ending: tuple[Any, ...]
    out: bytes = b""
    err: bytes = b""
    log: bytes = b""
    dump: bytes = b""
    leftovers: tuple[str, ...] = ()
    gpu_memory: tuple[str, ...] = ()


# --- keeper to host -----------------------------------------------------------------------------


class Release(NamedTuple):
    """Tear down the wide fixtures that the item at `next_position` (-1: none) does not share."""

    next_position: int


class Proceed(NamedTuple):
    """Go on after :class:`WideSetUp`."""


# --- host to child ---


class Go(NamedTuple):
    """Run this test.

    :param refused: wide fixtures that the host was asked for already, in vain.
    :param wide_setup_seconds: time the host spent for this test.
    :param others: as in :class:`Run`.
    """

    position: int
    next_position: int
    tests_failed: int
    location: tuple[str, int | None, str]
    refused: tuple[str, ...]
    wide_setup_seconds: float
    attempts: int = 0
    suite_reruns: int = 0


# --- child to host ------------------------------------------------------------------------------


class Warm(NamedTuple):
    """The child that waits has its GPUs open.

    :param trouble: or why it can't have them open, and is gone.
    """

    trouble: str = ""


class Over(NamedTuple):
    """The child has done what it was asked for.

    :param stops: see :class:`ChildExited`.
    :param early: whether nothing but memory is left of it, which the kernel takes down.
    :param written: numbers of the pages that the test wrote to, if that was asked.
    :param used: see :class:`Ended`; without what its end will take.
    """

    stops: bool
    early: bool
    written: tuple[int, ...] = ()
    used: tuple[Any, ...] = ()


# --- host to keeper -----------------------------------------------------------------------------


class Forked(NamedTuple):
    """A child runs the test.

    :param events: bytes that the host has written into its own event file by then; what it writes
        after them comes after what the child writes.
    :param files: number of its files among those that the host was given for its children.
    """

    pid: int
    events: int
    files: int


class ChildExited(NamedTuple):
    """The child was waited for, or all that is left of it is memory.

    :param status: as waitpid(2) gives it.
    :param leaves: whether it left so that a wide fixture is set up, and comes again.
    :param stops: whether it reported something after which no other test may begin unasked.
    :param used: see :class:`Ended`.
    :param early: see :class:`Over`.
    :param ours: whether the status is one that our code in the child gave, and no test's.
    """

    pid: int
    status: int
    leaves: bool
    stops: bool
    used: tuple[Any, ...] = ()
    early: bool = False
    ours: bool = True


class Began(NamedTuple):
    """The host begins something that has a clock of its own: "setup", "teardown" or "test"."""

    what: str


class WideSetUp(NamedTuple):
    """Wide fixtures are set up; the host waits for :class:`Proceed` before it forks a test.

    What they started must be known before a test can start anything.
    """


class Ready(NamedTuple):
    """The fresh interpreter has collected, and waits."""


class HostDone(NamedTuple):
    """The host did what it was told and is idle.

    :param retire: it has run tests itself, for a reason that has gone, and must fork no more.
    :param stops: it was told that the run is to stop.
    :param ran: how many tests it ran.
    :param trouble: what kept it from running the test, or "".
    :param wary: whether hooks, other than wide fixtures, left in it what keeps it from forking, so
        that no host is to begin a test that a child goes on with.
    """

    retire: bool = False
    stops: bool = False
    ran: int = 1
    trouble: str = ""
    wary: bool = False


# --- test process to worker, through its event file ---------------------------------------------


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
    """A report that pytest-rerunfailures logs when all phases are over; as in :class:`Report`."""

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
    """The wide fixture announced last is set up, or raised, at `time`."""

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
    """The test set one of its ``fkit_metrics``, or took it back (None)."""

    name: str
    value: str | bool | int | float | None


class Used(NamedTuple):
    """What a test used that ran in process `pid`, which runs others too.

    :param used: the fields of a Usage (sandbox/child/usage.py).
    """

    pid: int
    used: tuple[Any, ...]


class UsedBefore(NamedTuple):
    """What its process had used when a test began in it that runs others too; see :class:`Used`.

    Of that process :class:`Ended` tells, if it dies, what it used in all its life.
    """

    used: tuple[Any, ...]


class Measured(NamedTuple):
    """What coverage.py counted in this process since it last said so.

    :param arcs: whether it counts pairs of lines, not lines.
    :param contexts: by context and path, what was run.
    :param tracers: by path, the coverage plugin that measured it, where one did.
    """

    arcs: bool
    contexts: dict[str, dict[str, tuple[Any, ...]]]
    tracers: dict[str, str]


class PluginState(NamedTuple):
    """What a plugin keeps in memory until the end of the session, in its format.

    :param plugin: "benchmark", "syrupy", or a name of compat/kept_values.py.
    """

    plugin: str
    data: Any


class EndError(NamedTuple):
    """What was raised when a process did for its part what pytest does at the end of the session.

    Plain pytest shows it after all else, and exits with status 1.
    """

    text: str


class SessionFinished(NamedTuple):
    """These plugins, by their names, were told there that the session is over.

    :param exitstatus: what they want it to be, None if nothing else.
    """

    plugins: tuple[str, ...]
    exitstatus: int | None = None


class WorkerOutput(NamedTuple):
    """What was put into ``config.workeroutput`` there."""

    values: dict[str, Any]


class Leaves(NamedTuple):
    """The child leaves so that the host sets the wide fixture `argname` up.

    :param unsafe: or so that the host runs the test itself, because of this, found in the child.
    """

    argname: str
    unsafe: str = ""


class NotCollected(NamedTuple):
    """The fresh interpreter that was to run the test does not have it."""

    reason: str


class Completed(NamedTuple):
    """The last frame of a test that finished.

    :param by_pytest: whether pytest itself ran the test, and so reports on each of its phases;
        another plugin's pytest_runtest_protocol reports what it likes.
    """

    by_pytest: bool


Message = Union[
    Run, RunTogether, Follows, Finish, Stop, OrderAnew, Ping, Broken,
    Events, Output, Pong, Notice, Restarted, HostFiles, Ended, TornDown,
    Release, Proceed, Go, Forked, ChildExited, Began, WideSetUp, Ready, HostDone,
    Begins, LogStart, LogFinish, Report, HeldReport, WarningRecorded, Phase,
    WideSetup, WideSetupDone, WideOutput, WideTeardown,
    ExpectedFailure, SessionFlag, Interrupted, LiveText, SharedProcess, JunitRecord,
    Metric, Used, UsedBefore, Measured, PluginState, EndError, SessionFinished, WorkerOutput,
    Leaves, NotCollected, Completed, Over, Warm,
]  # fmt: skip

BY_NAME: dict[str, type[Message]] = {cls.__name__: cls for cls in get_args(Message)}
