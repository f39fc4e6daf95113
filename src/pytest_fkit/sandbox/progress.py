"""When the test began that a host is running, in memory that it shares with the keeper."""

from __future__ import annotations

from ..own import mmap, own_builtins, time

own_builtins(globals())


class Progress:
    """One number, written by the host at the start of each test, read by the keeper at leisure.

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
