"""What worker, keeper, host and child say to each other, as immutable values of built-in types."""

from __future__ import annotations

from typing import Any, Union, get_args

from ..named_tuple import NamedTuple
from ..own import own_builtins
from .crash_report import Core, NativeStacks
from .endings import Ending
from .event_file import Location, TestEvent
from .process_keys import OWN, ProcessKey

own_builtins(globals())

PATIENCE = 1.0
"""Seconds without an answer after which a :class:`Ping` is sent."""

# --- worker to keeper ---------------------------------------------------------------------------


class Run(NamedTuple):
    """The order to run one test, as worker, keeper, host and child know it.

    :param position: of the test in ``session.items``.
    :param next_position: of the test that runs after it in this worker, -1 for none.
    :param timeout: seconds from setup to teardown, and for the setup or teardown of wide fixtures
        as well; 0 for no limit.
    :param memory_limit: bytes, 0 for no limit.
    :param tests_failed: failures this session has counted; -1: those that the process that runs
        the test has counted, of an order given before the tests ahead of it ended.
    :param location: of the test, which a fresh process would have to work out at some cost.
    :param attempts: how often the test was tried before, in processes that died.
    :param suite_reruns: how many tests were run again, where nobody else counts that.
    :param gpu_memory: bytes that have to be free on its GPUs before it begins, 0 for none.
    :param artifacts: the folder of its own, "" if it is to make one when it needs it.
    :param seed: of the test's random numbers, -1 to leave them alone.
    """

    position: int
    next_position: int
    key: ProcessKey = OWN
    next_key: ProcessKey = OWN
    timeout: float = 0.0
    memory_limit: int = 0
    tests_failed: int = 0
    location: Location = ("", None, "")
    attempts: int = 0
    suite_reruns: int = 0
    gpu_memory: int = 0
    artifacts: str = ""
    seed: int = -1


class RunTogether(NamedTuple):
    """Run tests that share a process and have the same limits, one after the other.

    :param run: the order for the last one; none has a memory limit, or needs GPU memory.
    :param seconds: after these, begin none of them.
    """

    run: Run
    tests: tuple[tuple[int, Location], ...]
    seconds: float

    def at(self, number: int) -> Run:
        """The order for one of them."""
        if number + 1 == len(self.tests):
            return self.run
        (position, location), (following, _) = self.tests[number : number + 2]
        return self.run._replace(
            position=position, location=location, next_position=following, next_key=self.run.key
        )


class Finish(NamedTuple):
    """Tear all wide fixtures down, end every host, then answer with :class:`TornDown`."""

    timeout: float


class Stop(NamedTuple):
    """Interrupt the running test, tear wide fixtures down, all within `grace` seconds.

    :param drain: seconds of these in which the test may end by itself.
    """

    grace: float
    drain: float = 0.0


class Follows(NamedTuple):
    """Another test follows than the last :class:`Run` said; answered by an :class:`Ended`.

    :param next_position: its position, -1 if there is none for now.
    :param next_key: as in :class:`Run`, as is the timeout.
    """

    next_position: int
    next_key: ProcessKey
    timeout: float


class OrderAnew(NamedTuple):
    """Discard all queued orders; only those that follow count.

    Answers an :class:`Ended` that does not go on: the worker may have ordered before it heard.
    """


class Ping(NamedTuple):
    """Answer with :class:`Pong`: nothing was heard for a while.

    The number of the answer shows whether something was lost before. A host's ping gets no answer:
    its own number shows that to the keeper.
    """


class Inspect(NamedTuple):
    """Look at the process that runs the test; answered by :class:`Inspected`."""


class Broken(NamedTuple):
    """Setting up the wide fixture `key` killed a process: nobody may try again."""

    key: str
    text: str


# --- keeper to worker ---------------------------------------------------------------------------


class Events(NamedTuple):
    """Frames that the process with this pid wrote, for the worker to decode."""

    frames: bytes
    pid: int


class Output(NamedTuple):
    """What a test whose output is not captured wrote to descriptor `fd`."""

    fd: int
    text: bytes


class Pong(NamedTuple):
    """The answer to :class:`Ping`."""


class Inspected(NamedTuple):
    """The answer to :class:`Inspect`.

    :param pid: of the process that runs the test, 0 if none does.
    :param line: the last line of its output that can be seen.
    :param dump: the stacks of its threads, by faulthandler; empty if it can't be asked.
    """

    pid: int
    line: str = ""
    dump: bytes = b""


class Notice(NamedTuple):
    """A line for the user, shown once."""

    text: str


class Restarted(NamedTuple):
    """The test process left so that a wide fixture is set up; the test starts again."""


class HostFiles(NamedTuple):
    """With it come the files of a host that runs tests itself, in case the keeper dies."""

    key: ProcessKey
    pid: int


class Ended(NamedTuple):
    """The test is over and so is everything it started.

    :param pid: of the process that ended, 0 if there was none.
    :param wide: "setup" or "teardown" if a wide fixture was being set up or torn down.
    :param out, err, log: what was not collected of these.
    :param leftovers: descriptions of processes that had to be ended.
    :param survivors: descriptions of processes that not even SIGKILL ended.
    :param goes_on: whether the keeper begins what is queued; not after a bad ending, or if the
        test said that the run is to stop, or if not all tests of the order were begun.
    :param seconds: that its process took for the order.
    :param used: the fields of a RawUsage (sandbox/child/usage.py), none where it was not measured.
    :param hold_gpus: descriptions of processes that could not be ended and have a GPU open.
    :param gpu_memory: what the driver did not count as free again, in words, for each GPU.
    :param native: native stacks, where a debugger was asked for them.
    :param core: of the process, where cores are kept.
    """

    ending: Ending
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
    native: NativeStacks | None = None
    core: Core | None = None
    seconds: float = 0.0


class TornDown(NamedTuple):
    """Everything is torn down, as `ended` says, and every host is gone."""

    ended: Ended


# --- keeper to host -----------------------------------------------------------------------------


class Release(NamedTuple):
    """Tear down the wide fixtures that the test at `next_position` (-1: none) does not share."""

    next_position: int


class Proceed(NamedTuple):
    """Go on after :class:`WideReady`."""


# --- host to child ------------------------------------------------------------------------------


class Go(NamedTuple):
    """Run this test.

    :param refused: wide fixtures that the host was asked for, in vain.
    :param wide_setup_seconds: time the host spent for this test.
    """

    run: Run
    refused: tuple[str, ...] = ()
    wide_setup_seconds: float = 0.0


# --- child to host ------------------------------------------------------------------------------


class Warm(NamedTuple):
    """The waiting child has opened its GPUs.

    :param trouble: why it could not, and is gone; or "".
    """

    trouble: str = ""


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
    """The child was waited for.

    :param status: as waitpid(2) gives it.
    :param leaves: whether it left so that a wide fixture is set up, and comes again.
    :param used: see :class:`Ended`.
    :param ours: whether the status is one that our code in the child gave, and no test's.
    """

    status: int
    leaves: bool = False
    used: tuple[Any, ...] = ()
    ours: bool = True


class Began(NamedTuple):
    """The host begins something with a clock of its own: "setup", "teardown" or "test"."""

    what: str


class WideReady(NamedTuple):
    """Wide fixtures are set up; the host waits for :class:`Proceed` before it forks a test.

    The keeper has to know what they started before a test can start anything.
    """


class Ready(NamedTuple):
    """The fresh interpreter has collected, and waits.

    :param pid: its own; not that of its wrapper.
    """

    pid: int = 0


class SessionOver(NamedTuple):
    """The fresh interpreter's pytest session is over, after :class:`Finish`; now it exits."""


class HostDone(NamedTuple):
    """The host did what it was told and is idle.

    :param retire: whether it ran tests itself, for a reason that is gone, and must fork no more.
    :param stops: whether it heard that the run is to stop.
    :param ran: how many tests it ran.
    :param trouble: what kept it from running the test, or "".
    :param wary: whether hooks, other than wide fixtures, left in it what keeps it from forking, so
        that no host may begin a test that a child continues.
    :param awaits_judgment: whether no other test may begin before the controller has judged the
        last one's error.
    """

    retire: bool = False
    stops: bool = False
    ran: int = 1
    trouble: str = ""
    wary: bool = False
    awaits_judgment: bool = False


Message = Union[
    Run, RunTogether, Follows, Finish, Stop, OrderAnew, Ping, Inspect, Broken,
    Events, Output, Pong, Inspected, Notice, Restarted, HostFiles, Ended, TornDown,
    Release, Proceed, Go, Forked, ChildExited, Began, WideReady, Ready, SessionOver, HostDone,
    Warm, TestEvent,
]  # fmt: skip

BY_NAME: dict[str, type[Message]] = {cls.__name__: cls for cls in get_args(Message)}
