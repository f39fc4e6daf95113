"""Numbers in memory that processes share."""

from __future__ import annotations

from ...own import mmap, own_builtins, time

own_builtins(globals())


class Progress:
    """When the test began that a host is running: written there, read by the keeper at leisure.

    A message for each test would wake the keeper as often.
    """

    def __init__(self) -> None:
        # Shared with forked processes; an aligned double is written and read as a whole.
        self._memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")

    def begin(self) -> None:
        """A test begins."""
        self._memory[0] = time.monotonic()

    def began(self) -> float:
        """When the last test began, by the monotonic clock, which all processes have in common."""
        return self._memory[0]


class Tally:
    """How many failures the session of a host has counted, in its children."""

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    def set(self, number: int) -> None:
        """Say so."""
        self._memory[0] = number

    def get(self) -> int:
        """What was said last."""
        return self._memory[0]


class LastWord:
    """The status with which a process of ours ends by itself, written there, read above it.

    Code of a test may end the process with any status, of which ours say what we know.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory

    def clear(self) -> None:
        """Nothing is said yet, by a process that is to begin."""
        self._memory[0] = -1

    def say(self, status: int) -> None:
        """The process exits with this status at once."""
        self._memory[0] = status

    def is_said_by(self, status: int) -> bool:
        """Whether it is what the process ended with, as waitpid(2) gives that."""
        return status == self._memory[0] << 8


def last_words(number: int) -> list[LastWord]:
    """Those of so many processes, a page at most."""
    memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")
    words = [LastWord(memory[each : each + 1]) for each in range(number)]
    for word in words:
        word.clear()
    return words
