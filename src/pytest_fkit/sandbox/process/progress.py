"""Numbers in shared memory, written in one test process and read in another."""

from __future__ import annotations

from ...own import mmap, own_builtins, time

own_builtins(globals())


class Progress:
    """When a host's current test began: written by the host, read by the keeper when it polls.

    Not a message, which would wake the keeper for each test.
    """

    def __init__(self) -> None:
        # Shared with forked processes; an aligned double is written and read as a whole.
        self._memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")

    def begin(self) -> None:
        """Record that a test begins now."""
        self._memory[0] = time.monotonic()

    def began(self) -> float:
        """When the last test began, by the monotonic clock, which is the same in all processes."""
        return self._memory[0]


class Tally:
    """A number that the children of a host write, and the host reads."""

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    def set(self, number: int) -> None:
        self._memory[0] = number

    def get(self) -> int:
        return self._memory[0]


class AnnouncedExit:
    """The status with which our code in a process is about to exit, for the process above it.

    Code of a test may exit with any status, also with one that has a meaning in ours.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory

    def clear(self) -> None:
        """Before the process begins: nothing is announced."""
        self._memory[0] = -1

    def announce(self, status: int) -> None:
        """Announce that this process exits with `status` at once."""
        self._memory[0] = status

    def matches(self, status: int) -> bool:
        """Whether the process ended as announced.

        :param status: its wait status.
        """
        return status == self._memory[0] << 8


def announced_exits(number: int) -> list[AnnouncedExit]:
    """Make them for so many processes, at most what fits a page."""
    memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")
    exits = [AnnouncedExit(memory[each : each + 1]) for each in range(number)]
    for announced in exits:
        announced.clear()
    return exits
