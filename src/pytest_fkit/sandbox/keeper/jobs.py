"""The keeper's records of hosts, of children and of the running test."""

from __future__ import annotations

from typing import Any

from ...named_tuple import NamedTuple
from ...own import own_builtins, time
from ...protocol.channels import Pipes
from ...protocol.crash_report import Core, NativeStacks
from ...protocol.descriptors import Files
from ...protocol.endings import Ending, Exited, Finished, Lost, from_wait_status
from ...protocol.event_file import Completed
from ...protocol.messages import Ended, Run
from ...protocol.process_keys import ProcessKey
from ...protocol.wire import Sorter
from ...system.limits import refusal_of
from ..process.excerpts import read_ends
from ..process.progress import AnnouncedExit, Progress

own_builtins(globals())


class Remains(NamedTuple):
    """What an ended process had written that was not forwarded before."""

    out: bytes = b""
    err: bytes = b""
    log: bytes = b""
    dump: bytes = b""


_NOTHING = Remains()


class _Process:
    """The keeper's record of a process that runs tests, and of what it writes."""

    def __init__(self, pid: int, files: Files) -> None:
        self.pid = pid
        self.files = files
        self.events_read = 0
        self.events = Sorter()
        self.completed: Completed | None = None  # if that is the last frame read
        self.output_read = [0, 0]  # bytes of stdout and stderr that were forwarded
        self.dump_read = 0  # bytes of stacks that were asked for while it ran

    @property
    def process(self) -> int:
        """The pid of its Python, as far as that is known."""
        return self.pid

    def remains(self) -> Remains:
        """Read what it wrote, of its output only what was not forwarded."""
        files, (out, err) = self.files, self.output_read
        return Remains(
            read_ends(files.out, out) + read_ends(files.fixture_out),
            read_ends(files.err, err) + read_ends(files.fixture_err),
            read_ends(files.log),
            read_ends(files.dump, self.dump_read),
        )

    def lost_reports(self) -> Lost | None:
        """The ending of its test if a gap was found in the reports, else None."""
        trouble = self.events.trouble
        return Lost(f"{trouble} of what its process reported") if trouble else None


class HostStart(NamedTuple):
    """What a new host is started for.

    :param position: of the first test that is to run in it, in the worker's collection.
    :param spare: whether it is a fresh interpreter that is started ahead of need.
    :param artifacts: the folder of its first test, "" if it has none.
    """

    key: ProcessKey
    position: int
    spare: bool = False
    artifacts: str = ""


class HostConnection(NamedTuple):
    """One end, the keeper's or the host's, of what connects the two.

    :param files: those that the host writes.
    :param sets: files for its children, a set for each; empty where it forks no tests.
    :param exits: the host's announced exit, then one for each set of files.
    """

    link: Pipes
    files: Files
    sets: tuple[Files, ...]
    progress: Progress
    exits: tuple[AnnouncedExit, ...]

    def close(self) -> None:
        """Close the descriptors of this end."""
        self.link.close()
        for files in (self.files, *self.sets):
            files.close()


class HostProcess(_Process):
    """The keeper's record of one host."""

    def __init__(self, pid: int, connection: HostConnection, start: HostStart) -> None:
        super().__init__(pid, connection.files)
        self.connection = connection
        self.progress = connection.progress
        self.link = connection.link
        self.key = start.key
        self.was_spare = start.spare
        self.status: int | None = None
        self.retire = False
        self.session_goes_on = start.key.is_spawned  # after it was done
        self.inner = 0  # pid of its Python, where a wrapper runs that
        self.daemons: set[int] = set()

    @property
    def process(self) -> int:
        return self.inner or self.pid

    def ended_by_ours(self) -> bool:
        """Whether our code chose its exit status, if it exited, and not code of a test.

        Assumed of a fresh interpreter, which has no memory in common with us to announce it in.
        """
        assert self.status is not None
        if self.key.wrapper:
            return False
        return self.key.is_spawned or self.connection.exits[0].matches(self.status)

    def close(self) -> None:
        """Close the keeper's descriptors for this host."""
        self.connection.close()


class ChildProcess(_Process):
    """The keeper's record of the child that runs the current test."""


class Job:
    """The order that is being executed.

    :param run: its test, or the last of several that the host runs one after the other.
    :param together: whether the order is for several tests.
    """

    def __init__(self, run: Run, host: HostProcess, together: bool = False) -> None:
        self.run = run
        self.together = together
        self.host = host
        self.child: ChildProcess | None = None
        self.ending: Ending | None = None
        self.verdict: Ending | None = None  # fixed before the process is killed for it
        self.deadline: float | None = None
        self.limit = 0.0
        self.awaits = ""  # what its host has to do by the deadline, if that runs no user code
        self.runs_here = together  # whether the host itself runs the test
        self.stage = ""  # of the host: "start", "setup" or "teardown" of wide fixtures, or ""
        self.wide_began = False  # whether the host has said so, and not only been told
        self.wide = ""  # the stage of wide fixtures in which it ended badly
        self.inherited_memory: int | None = None  # bytes; None while no test runs in `process`
        self.peak_memory = 0
        self.pid = 0
        self.remains = Remains()
        self.native: NativeStacks | None = None
        self.core: Core | None = None
        self.dump = b""  # stacks, read before the process is killed for its verdict
        self.used: tuple[Any, ...] = ()
        self.leftovers: tuple[str, ...] = ()
        self.survivors: tuple[str, ...] = ()
        self.hold_gpus: tuple[str, ...] = ()
        self.stops = False  # whether the test asked for the run to stop
        self.ran = 1  # number of tests that were begun
        self.awaits_judgment = False  # of an error, before another test may begin
        self.began = time.monotonic()
        self.seconds = 0.0
        self.done = False

    def judge(self, verdict: Ending) -> None:
        """Fix the verdict: whatever the process still does until it ends changes nothing."""
        self.verdict = verdict
        self.wide = self._wide_stage()

    def conclude(self, ending: Ending, pid: int, remains: Remains = _NOTHING) -> None:
        """Record how a process ended, unless a bad ending is recorded already."""
        if self.ending is None or self.ending == Finished():
            self.ending, self.pid, self.remains = ending, pid, remains
            self.dump = self.dump or remains.dump
            if self.verdict is None:
                self.wide = self._wide_stage()

    def _wide_stage(self) -> str:
        return "" if self.stage == "start" else self.stage

    def ended(self) -> Ended:
        """What the worker is told."""
        assert self.ending is not None
        return Ended(
            self.ending, self.pid, self.wide, *self.remains[:3], self.dump, self.leftovers,
            self.survivors, used=self.used, hold_gpus=self.hold_gpus,
            native=self.native, core=self.core, seconds=self.seconds,
        )  # fmt: skip

    def absorb(self, other: Job) -> None:
        """Add the outcome of a teardown that an idle host did after the test.

        A test that has a bad ending keeps it: the teardown's may be a consequence.
        """
        if self.ending == Finished() and other.ending not in (None, Finished()):
            assert other.ending is not None
            self.conclude(other.ending, other.pid, other.remains._replace(dump=other.dump))
            self.native = self.native or other.native
            self.core = self.core or other.core
            self.wide = "teardown"
        self.leftovers += other.leftovers
        self.survivors += other.survivors

    @property
    def runs_test(self) -> bool:
        """Whether the test itself runs, and not wide fixtures."""
        return self.child is not None or (self.run.key.is_shared and not self.stage)

    @property
    def runs_user_code(self) -> bool:
        """Whether SIGINT would interrupt a test or a fixture, and not code of ours."""
        return self.runs_test or (self.stage in ("setup", "teardown") and self.wide_began)

    @property
    def test_process(self) -> ChildProcess | HostProcess:
        """What runs the test: its child, or the host where there is none."""
        return self.child or self.host

    @property
    def process(self) -> int:
        """The pid of the process that time and memory limits apply to."""
        return self.test_process.process

    @property
    def files(self) -> Files:
        return self.test_process.files


def end_in_words(status: int, ours: bool = False) -> str:
    """Describe the end of a process by its wait status.

    :param ours: whether our code chose the exit status.
    """
    ending = from_wait_status(status)
    if isinstance(ending, Exited):
        reason = refusal_of(ending.status) if ours else ""
        return f"exited with status {ending.status}" + (f" ({reason})" if reason else "")
    return f"was ended by {ending.title}"
