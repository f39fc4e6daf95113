"""What the controller and a worker say to each other, as immutable values of built-in types.

They travel in frames of :mod:`.wire`, any number in each, by one stream in each direction; gaps are
noticed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Iterable, Union, get_args

from ..named_tuple import NamedTuple
from ..own import own_builtins, threading
from .endings import Ending
from .event_file import Figure, GpuError, Location, ReportData, ReportFacts
from .wire import Known, Packer, Unpacker, has_values

if TYPE_CHECKING:
    import pytest
    from execnet import Channel

own_builtins(globals())

GAP_WAIT = 1.0
"""Seconds after a later message arrived until a missing one counts as lost."""

# --- controller to worker -----------------------------------------------------------------------


class Start(NamedTuple):
    """What a worker can't know; xdist hands it over before the worker starts.

    :param channel: execnet's, for all that follows.
    :param controller: pid of the controller, 0 if it is on another machine.
    :param worker: as in "gw0".
    :param careful: whether to try every import first, since a worker died while it collected.
    :param dispatches: whether tests come as :class:`RunTests`, not by xdist's own scheduler.
    :param groups: whether :class:`Facts` are to name what tests have in common.
    :param whereabouts: path of the memory that it shares with the controller, "" for none.
    :param done: how many verdicts an earlier run has, by node id; None where there was no such run.
    :param seed: of the first repetition of each test, None where none is repeated.
    """

    channel: Channel
    controller: int
    worker: str
    careful: bool
    dispatches: bool
    groups: bool
    whereabouts: str = ""
    done: dict[str, int] | None = None
    seed: int | None = None


class RunTests(NamedTuple):
    """Run the tests at these positions of the worker's collection, after those it has."""

    positions: tuple[int, ...]


class RecallTests(NamedTuple):
    """Give back the tests among these that are not begun; answered by :class:`Returned`.

    :param whole: all or none.
    """

    positions: tuple[int, ...]
    whole: bool


class LendGpus(NamedTuple):
    """Run the test at `position` in a fresh interpreter with these variables."""

    position: int
    environ: dict[str, str]


class TearDown(NamedTuple):
    """No test follows for now: tear down."""


class GoOn(NamedTuple):
    """Begin tests again; answers the :class:`Holds` of that number, and no later one."""

    hold: int


class ProbeGpus(NamedTuple):
    """Try the GPUs; answered by :class:`Probed`."""


class DescribeRunning(NamedTuple):
    """Say what runs; answered by :class:`RunningItem` or :class:`NothingRuns`."""


class CheckAlive(NamedTuple):
    """Show that you are alive; answered by :class:`Alive`, whatever the tests do."""


class StopRun(NamedTuple):
    """Interrupt the running test and tear down.

    :param drain: seconds in which the test may end by itself.
    """

    drain: float = 0.0


class EndNow(NamedTuple):
    """End at once."""


# --- worker to controller, of itself ------------------------------------------------------------


class Alive(NamedTuple):
    """The answer to :class:`CheckAlive`."""


class Line(NamedTuple):
    """A line for the terminal."""

    text: str


class SlowItem(NamedTuple):
    """The test runs for so long.

    :param phase: what it does, as in "call" or "setup of module-scoped fixture 'db'".
    :param gpus: the ids of the GPUs that it sees, where they differ from the worker's.
    """

    nodeid: str
    phase: str
    seconds: float
    gpus: tuple[str, ...] = ()


class RunningItem(NamedTuple):
    """The test that runs.

    :param pid: of its process, 0 if there is none at the moment.
    :param line: the last line of output.
    :param stacks: by faulthandler, see :func:`.stacks.reorder_stacks`.
    :param origins: tell whose code a frame runs, see :class:`.stacks.Origins`.
    """

    nodeid: str
    phase: str
    seconds: float
    gpus: tuple[str, ...]
    pid: int
    line: str
    stacks: str
    origins: tuple[str, str, tuple[str, ...]]


class NothingRuns(NamedTuple):
    """No test runs."""


class Facts(NamedTuple):
    """What there is to know of the collected tests, sent before xdist sends their node ids.

    :param groups: by position, the name of the test's group, "" for none; empty where nobody asks.
    :param needs: by position, the fields of the Needs of tests that need anything.
    :param connected: by position of a test that has to run on one worker with others, that of the
        first of these.
    :param once: positions of the tests that share a process because their suite says so, and why;
        where tests are repeated, these are not.
    """

    groups: tuple[str, ...]
    needs: dict[int, tuple[int | None, str, int]]
    connected: dict[int, int]
    once: dict[int, str] = {}  # noqa: RUF012 (nobody changes it)


class LeftOut(NamedTuple):
    """The node ids of the tests that have a verdict from an earlier run."""

    nodeids: tuple[str, ...]


class CollectionGpuErrors(NamedTuple):
    """Node ids of collectors that met a GPU error, each with its category."""

    found: tuple[tuple[str, str], ...]


class Waits(NamedTuple):
    """There is nothing to run."""


class Returned(NamedTuple):
    """The tests at these positions will not be run here."""

    positions: tuple[int, ...]


class Probed(NamedTuple):
    """The GPUs were tried: "healthy", "sick" or "unknown"."""

    state: str
    reason: str


class Holds(NamedTuple):
    """No test begins here before :class:`GoOn`: the GPUs may be why the last one failed.

    :param hold: its number; a later one replaces those before.
    :param position: of the test, which may not be complete before it is known what follows; -1
        where a probe found the GPUs sick.
    :param error: that the test met.
    """

    hold: int
    position: int = -1
    error: GpuError | None = None


class Distrusts(NamedTuple):
    """What the controller sent is damaged, so this worker ends."""

    trouble: str


class Stopped(NamedTuple):
    """Everything of this worker is torn down."""


# --- worker to controller, of tests -------------------------------------------------------------


class ItemBegins(NamedTuple):
    """If the worker dies from now on, it was the test at `position`."""

    position: int


class ItemStarted(NamedTuple):
    """pytest_runtest_logstart."""

    nodeid: str
    location: Location


class ItemReported(NamedTuple):
    """pytest_runtest_logreport; see :class:`.event_file.Report`."""

    position: int
    data: ReportData
    facts: ReportFacts | None = None


class ItemFinished(NamedTuple):
    """pytest_runtest_logfinish."""

    nodeid: str
    location: Location


class ItemAttempt(NamedTuple):
    """What a journal says of an attempt; times in seconds since the epoch.

    :param phases: name, start, duration and outcome of each.
    :param wide: of each setup and teardown of wide fixtures, which of the two, their label, start
        and duration.
    :param pid: of the process that ran it, 0 if unknown.
    :param used: the fields of a Usage (sandbox/child/usage.py), none where it was not measured.
    :param shared: why the test did not have a process of its own, or "".
    :param xids: the driver's errors on its GPUs meanwhile, as the journal has them.
    :param left: how many reports on it are still to come.
    :param again: whether the test is run once more.
    """

    nodeid: str
    start: float
    ending: Ending
    phases: tuple[tuple[str, float, float, str], ...] = ()
    wide: tuple[tuple[str, str, float, float], ...] = ()
    pid: int = 0
    used: tuple[float | None, ...] = ()
    shared: str = ""
    metrics: tuple[tuple[str, Figure], ...] = ()
    leftovers: tuple[str, ...] = ()
    xids: tuple[dict[str, object], ...] = ()
    left: int = 0
    again: bool = False


class ItemGpuError(NamedTuple):
    """The test met a GPU error."""

    nodeid: str
    error: GpuError


class ItemComplete(NamedTuple):
    """Nothing more comes of the test at `position`, which took so many seconds."""

    position: int
    seconds: float


# --- in the controller --------------------------------------------------------------------------


class Reported(NamedTuple):
    """An :class:`ItemReported` with pytest's report object."""

    position: int
    report: pytest.TestReport


class RepeatedItem(NamedTuple):
    """The verdict on all repetitions of a test, a RepeatResult (journal/rates.py)."""

    nodeid: str
    result: Any


Order = Union[
    RunTests, RecallTests, LendGpus, TearDown, GoOn, ProbeGpus, DescribeRunning, CheckAlive,
    StopRun, EndNow,
]  # fmt: skip

OfTests = Union[
    ItemBegins, ItemStarted, ItemReported, ItemFinished, ItemAttempt, ItemGpuError, ItemComplete,
]  # fmt: skip

OfWorker = Union[
    Alive, Line, SlowItem, RunningItem, NothingRuns, Facts, LeftOut, CollectionGpuErrors, Waits,
    Returned, Probed, Holds, Distrusts, Stopped,
]  # fmt: skip

OfItself = Union[Waits, Returned, Probed, Holds]
"""What a worker says of itself to the schedule."""

Told = Union[
    ItemBegins, ItemStarted, Reported, ItemFinished, ItemAttempt, ItemGpuError, ItemComplete,
    RepeatedItem,
]  # fmt: skip
"""What a worker said of tests, as the controller handles it."""


def reports_of(said: Iterable[Told]) -> list[pytest.TestReport]:
    return [each.report for each in said if isinstance(each, Reported)]


def came_to_its_end(reports: Iterable[pytest.TestReport]) -> bool:
    """Whether the test of these did; otherwise the run was stopped meanwhile."""
    return any(report.when != "setup" or not report.passed for report in reports)


has_values(ItemAttempt, "ending")
has_values(ItemReported, "facts")
has_values(ItemGpuError, "error")
has_values(Holds, "error")

TO_WORKER: Known = {cls.__name__: cls for cls in get_args(Order)}
FROM_WORKER: Known = {cls.__name__: cls for cls in (*get_args(OfTests), *get_args(OfWorker))}


class Outbox:
    """One end of the border: numbers messages and sends them, in any thread."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send
        self._packer = Packer()
        self._lock = threading.Lock()
        self._unsent: list[bytes] = []

    def send(self, *messages: Order | OfTests | OfWorker) -> None:
        """Send these, in this order.

        :raises OSError: if the other side is gone.
        """
        with self._lock:
            self._unsent.append(self._packer.pack(*messages))
            # An interruption may come at any point; the reader drops what arrives twice.
            self._send(b"".join(self._unsent))
            self._unsent = []


def orders() -> Unpacker:
    """Reads what a controller sends."""
    return Unpacker(TO_WORKER)


def answers() -> Unpacker:
    """Reads what a worker sends."""
    return Unpacker(FROM_WORKER)
