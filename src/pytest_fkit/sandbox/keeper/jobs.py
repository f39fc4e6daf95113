"""What the keeper knows of the processes below it and of the test that is running."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...own import own_builtins
from ...protocol.channels import Pipes
from ...protocol.descriptors import Files
from ...protocol.endings import Ending, Exited, Finished, Lost, from_wait_status
from ...protocol.messages import Run
from ...protocol.process_names import SPAWNED
from ...protocol.wire import Sorter
from ..process.excerpts import read_ends
from ..process.progress import LastWord, Progress

own_builtins(globals())


class Remains(NamedTuple):
    """What a process wrote that nobody collected before it ended."""

    out: bytes = b""
    err: bytes = b""
    log: bytes = b""
    dump: bytes = b""


_NOTHING = Remains()


def _remains(files: Files, output_read: list[int]) -> Remains:
    return Remains(
        read_ends(files.out, output_read[0]) + read_ends(files.fixture_out),
        read_ends(files.err, output_read[1]) + read_ends(files.fixture_err),
        read_ends(files.log),
        read_ends(files.dump),
    )


class Start(NamedTuple):
    """What a new host is for.

    :param share: name under which tests share it.
    :param position: of the first test that is to run in it.
    :param spare: whether it is a fresh interpreter that nobody waits for yet.
    :param environ: see :class:`Run`.
    """

    share: str
    position: int
    spare: bool = False
    environ: tuple[tuple[str, str], ...] = ()


class Ties(NamedTuple):
    """What ties a host to its keeper, in one of the two.

    :param files: what the host writes.
    :param sets: what its children write, each of which gets one; none where it forks no tests.
    :param words: its last one, and those of its children, by the numbers of their files.
    """

    link: Pipes
    files: Files
    sets: tuple[Files, ...]
    progress: Progress
    words: tuple[LastWord, ...]

    def close(self) -> None:
        """Give the descriptors back, in this process."""
        self.link.close()
        for files in (self.files, *self.sets):
            files.close()


class HostProcess:
    """The keeper's view of one host."""

    def __init__(self, pid: int, ties: Ties, start: Start) -> None:
        self.pid = pid
        self.ties = ties
        self.progress = ties.progress
        self.link = ties.link
        self.files = ties.files
        self.share = start.share
        self.environ = start.environ
        self.was_spare = start.spare
        self.status: int | None = None
        self.retire = False
        self.events_read = 0
        self.events = Sorter()
        self.completed = False  # whether the last frame is that of a test that finished
        self.output_read = [0, 0]
        self.daemons: set[int] = set()

    def ended_by_ours(self) -> bool:
        """Whether, if it exited, its status is one that our code gave, and no test's.

        A fresh interpreter has no memory in common with us, in which it could say so.
        """
        assert self.status is not None
        return self.share.startswith(SPAWNED) or self.ties.words[0].is_said_by(self.status)

    def remains(self) -> Remains:
        """What it wrote, its output after what was passed on."""
        return _remains(self.files, self.output_read)

    def close(self) -> None:
        """Give its descriptors back."""
        self.ties.close()


class ChildProcess:
    """The keeper's view of the child that runs the current test."""

    def __init__(self, pid: int, files: Files) -> None:
        self.pid = pid
        self.files = files
        self.events_read = 0
        self.events = Sorter()
        self.completed = False  # whether the last frame is that of a test that finished
        self.output_read = [0, 0]

    def remains(self) -> Remains:
        """What it wrote, its output after what was passed on."""
        return _remains(self.files, self.output_read)


class Job:
    """The test that is running.

    :param run: it, or the last of several that the host runs one after the other.
    :param together: whether it is one of several.
    """

    def __init__(self, run: Run, host: HostProcess, together: bool = False) -> None:
        self.run = run
        self.together = together
        self.host = host
        self.child: ChildProcess | None = None
        self.ending: Ending | None = None
        self.verdict: Ending | None = None  # fixed before the process is ended for it
        self.deadline: float | None = None
        self.limit = 0.0
        self.awaits = ""  # what its host has to do meanwhile that runs no code of the suite
        self.runs_here = together  # whether the host itself runs the test
        self.stage = ""  # what the host is doing: "setup" or "teardown" of wide fixtures, or ""
        self.wide = ""  # the stage in which it ended badly
        self.inherited_memory: int | None = None  # bytes; None while no test runs in `process`
        self.peak_memory = 0
        self.pid = 0
        self.remains = Remains()
        self.dump = b""  # taken before the process is ended for its verdict
        self.used: tuple[Any, ...] = ()
        self.leftovers: tuple[str, ...] = ()
        self.survivors: tuple[str, ...] = ()
        self.hold_gpus: tuple[str, ...] = ()
        self.stops = False  # the test said that the run is to stop
        self.ran = 1  # tests, if it is one of several
        self.done = False

    def conclude(self, ending: Ending, pid: int, remains: Remains = _NOTHING) -> None:
        """Take down how a process ended; the first bad ending of a test is the one that counts."""
        if self.ending is None or self.ending == Finished():
            self.ending, self.pid, self.remains = ending, pid, remains
            self.dump = self.dump or remains.dump
            self.wide = "" if self.stage == "start" else self.stage

    def absorb(self, other: Job) -> None:
        """Take down how an idle host fared that tore down after the test."""
        if other.ending is not None and other.ending != Finished():
            self.conclude(other.ending, other.pid, other.remains._replace(dump=other.dump))
            self.wide = "teardown"
        self.leftovers += other.leftovers
        self.survivors += other.survivors

    @property
    def runs_user_code(self) -> bool:
        """Whether an interrupt would reach a test or a fixture, and not the host's own code."""
        testing = self.child is not None or bool(self.run.share and not self.stage)
        return testing or self.stage in ("setup", "teardown")

    @property
    def process(self) -> int:
        """The pid that the clock and the memory limit are about."""
        return self.child.pid if self.child is not None else self.host.pid


def lost(process: HostProcess | ChildProcess) -> Lost | None:
    """The ending of a test of whose reports something is missing."""
    trouble = process.events.trouble
    return Lost(f"{trouble} of what its process reported") if trouble else None


def how(status: int) -> str:
    """How a process ended, by its status, in words."""
    ending = from_wait_status(status)
    if isinstance(ending, Exited):
        return f"exited with status {ending.status}"
    return f"was ended by {ending.title}"
