"""How a test process ended, as a closed set of types.

Of each, `title` is what the short summary shows, and `story` what the report says, to follow the
words "the test process".
"""

from __future__ import annotations

from typing import Union

from ..named_tuple import NamedTuple
from ..own import own_builtins, signal

own_builtins(globals())


class Finished(NamedTuple):
    """All reports of the test arrived and its process left in order."""

    @property
    def title(self) -> str:
        return "finished"

    @property
    def story(self) -> str:
        return "finished"


class Signaled(NamedTuple):
    """A signal ended the process.

    :param core_dumped: whether the kernel wrote a core file.
    :param out_of_memory: whether the kernel's out-of-memory counters rose at the same time.
    """

    signal: int
    core_dumped: bool = False
    out_of_memory: bool = False

    @property
    def title(self) -> str:
        name = signal_name(self.signal)
        return f"{name} (out of memory)" if self.out_of_memory else name

    @property
    def story(self) -> str:
        text = f"was ended by {signal_name(self.signal)} (signal {self.signal})"
        if self.out_of_memory:
            text += "; the kernel's out-of-memory killer was at work at that moment"
        if self.core_dumped:
            text += "; a core file was written"
        return text


class Exited(NamedTuple):
    """The process left by itself before the test had finished, status 0 included."""

    status: int

    @property
    def title(self) -> str:
        return f"exit status {self.status}"

    @property
    def story(self) -> str:
        return f"exited with status {self.status} before the test had finished"


class TimedOut(NamedTuple):
    """The time limit ran out.

    :param limit: seconds.
    :param state: the state letter of the process at the deadline as ps(1) shows it, or "".
    :param silent: whether it had not said that the test began.
    """

    limit: float
    state: str = ""
    silent: bool = False

    @property
    def title(self) -> str:
        text = f"timed out after {self.limit:g} s"
        return f"{text}, before it said that the test began" if self.silent else text

    @property
    def story(self) -> str:
        text = f"timed out after {self.limit:g} s and was ended"
        if self.state == "T":
            text += "; it had been stopped (SIGSTOP or the like)"
        elif self.state == "D":
            text += "; it was in uninterruptible sleep, inside the kernel"
        if self.silent:
            text += "; it had not said that the test began"
        return text


class MemoryExceeded(NamedTuple):
    """The memory that the process tree took for itself since the fork passed the limit.

    :param limit: bytes.
    :param peak: bytes, the highest value seen.
    """

    limit: int
    peak: int

    @property
    def title(self) -> str:
        return f"memory limit {format_size(self.limit)} exceeded ({format_size(self.peak)})"

    @property
    def story(self) -> str:
        return (
            f"took {format_size(self.peak)} of memory since its start, more than the limit of "
            f"{format_size(self.limit)}, and was ended"
        )


class Lost(NamedTuple):
    """A process above the test's died, or its own can't be ended."""

    reason: str

    @property
    def title(self) -> str:
        return f"lost: {self.reason}"

    @property
    def story(self) -> str:
        return f"was lost: {self.reason}"


class ForkUnsafe(NamedTuple):
    """The test was not run, since a forked process can't.

    :param reason: what is open where the process would have been forked.
    """

    reason: str

    @property
    def title(self) -> str:
        return f"can't be forked: {self.reason}"

    @property
    def story(self) -> str:
        return f"can't be forked: {self.reason}"


ITS_END = "its end"
"""What an :class:`Unreported` process kept back that sent all reports."""


class Unreported(NamedTuple):
    """The process ended in order, but not all that it had to say of its test arrived.

    :param phases: without a report, as in "call and teardown", or :data:`ITS_END`.
    """

    phases: str

    @property
    def title(self) -> str:
        return f"no report on {self.phases}"

    @property
    def story(self) -> str:
        return (
            f"ended in order, but no report on {self.phases} arrived; a plugin or a conftest.py "
            "may have kept it back, or changed how pytest runs a test"
        )


class WrapperEnded(NamedTuple):
    """The wrapper of the process ended badly, before Python had begun or after the test.

    :param wrapper: its name, as in "valgrind".
    :param how: as in "exit status 99" or "SIGSEGV".
    :param begun: whether Python had begun.
    """

    wrapper: str
    how: str
    begun: bool

    @property
    def title(self) -> str:
        return f"{self.wrapper}: {self.how}{'' if self.begun else ', without starting Python'}"

    @property
    def story(self) -> str:
        if self.begun:
            return f"had finished the test; then its wrapper, {self.wrapper}, ended by {self.how}"
        return f"never began: its wrapper, {self.wrapper}, ended by {self.how}, without starting it"


NOT_BEGUN = "not begun: "
"""How the title of an :class:`Unmet` begins."""


class Unmet(NamedTuple):
    """No process was begun, since what the test needs was not there in time."""

    reason: str

    @property
    def title(self) -> str:
        return f"{NOT_BEGUN}{self.reason}"

    @property
    def story(self) -> str:
        return f"was not begun: it {self.reason}"


Ending = Union[
    Finished, Signaled, Exited, TimedOut, MemoryExceeded, Lost, ForkUnsafe, Unreported,
    WrapperEnded, Unmet,
]  # fmt: skip


def from_wait_status(status: int) -> Signaled | Exited:
    """The ending of a process that had not finished, by its status of waitpid(2)."""
    # os.waitstatus_to_exitcode exists from Python 3.9 on.
    if status & 0x7F:
        return Signaled(status & 0x7F, bool(status & 0x80))
    return Exited(status >> 8)


FAULTS = frozenset({signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV})
"""Signals by which a process dies of a fault in what it runs, as in a driver or at an abort(3)."""


def signal_name(number: int) -> str:
    """The name of a signal, as in SIGSEGV, SIGRTMIN+3 or "signal 99"."""
    try:
        return signal.Signals(number).name
    except ValueError:
        first = getattr(signal, "SIGRTMIN", None)
        last = getattr(signal, "SIGRTMAX", None)
        if first is not None and last is not None and first < number < last:
            return f"SIGRTMIN+{number - first}"
        return f"signal {number}"


def format_size(size: float) -> str:
    """A number of bytes for people: 1536 is "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"


def count(number: int, what: str) -> str:
    """As in "1 test" or "2 tests"."""
    return f"1 {what}" if number == 1 else f"{number} {what}s"
