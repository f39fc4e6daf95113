"""What the keeper knows of the processes below it and of the test that is running."""

from __future__ import annotations

from ..endings import Ending, Finished
from ..messages import Run
from .descriptors import Files, Link


class HostProcess:
    """The keeper's view of one host."""

    def __init__(self, pid: int, link: Link, files: Files, share: str) -> None:
        self.pid = pid
        self.link = link
        self.files = files
        self.share = share
        self.status: int | None = None
        self.retire = False
        self.events_read = 0
        self.output_read = [0, 0]
        self.daemons: set[int] = set()

    def close(self) -> None:
        """Give its descriptors back."""
        self.link.close()
        self.files.close()


class ChildProcess:
    """The keeper's view of the child that runs the current test."""

    def __init__(self, pid: int, files: Files) -> None:
        self.pid = pid
        self.files = files
        self.events_read = 0
        self.output_read = [0, 0]


class Job:
    """The test that is running."""

    def __init__(self, run: Run, host: HostProcess) -> None:
        self.run = run
        self.host = host
        self.child: ChildProcess | None = None
        self.ending: Ending | None = None
        self.verdict: Ending | None = None  # fixed before the process is ended for it
        self.deadline: float | None = None
        self.limit = 0.0
        self.stage = ""  # what the host is doing: "setup" or "teardown" of wide fixtures, or ""
        self.wide = ""  # the stage in which it ended badly
        self.inherited_memory = 0
        self.peak_memory = 0
        self.pid = 0
        self.out = self.err = self.dump = b""
        self.leftovers: tuple[str, ...] = ()
        self.survivors: tuple[str, ...] = ()
        self.done = False

    def conclude(self, ending: Ending, pid: int, out: bytes, err: bytes, dump: bytes) -> None:
        """Take down how a process ended; the first bad ending of a test is the one that counts."""
        if self.ending is None or self.ending == Finished():
            self.ending, self.pid, self.out, self.err = ending, pid, out, err
            self.dump = self.dump or dump
            self.wide = self.stage

    def absorb(self, other: Job) -> None:
        """Take down how an idle host fared that tore down after the test."""
        if other.ending is not None and other.ending != Finished():
            self.conclude(other.ending, other.pid, other.out, other.err, other.dump)
            self.wide = "teardown"
        self.leftovers += other.leftovers
        self.survivors += other.survivors

    @property
    def process(self) -> int:
        """The pid that the clock and the memory limit are about."""
        return self.child.pid if self.child is not None else self.host.pid
