"""Which tests a worker runs next, and how many it asks for at once."""

from __future__ import annotations

from typing import Protocol

SECONDS = 0.2
"""What one order to a process that tests share is worth: a round trip costs about 1 ms."""


FIRST = 32
"""Tests to be asked for before it is known how long they take."""

MOST = 1024
"""Tests in one order."""


class Tests(Protocol):
    """Where tests come from."""

    def take(self, most: int) -> tuple[list[int], int | None]:
        """Wait for a test; take more, up to `most`, if they are there.

        :return: positions in ``session.items``, none where there are no more; and the position of
            the test after these, None if there is none.
        """


class AllTests:
    """All tests of a session, in order.

    :param number: of them.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._next = 0

    def take(self, most: int) -> tuple[list[int], int | None]:
        """See :class:`Tests`."""
        taken = list(range(self._next, min(self._next + most, self._number)))
        self._next += len(taken)
        return taken, self._next if self._next < self._number else None


class Pace:
    """How many tests are worth one order.

    :param limit: the most that there may be.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.most = min(limit, FIRST)

    def took(self, number: int, seconds: float) -> None:
        """So many tests took so long."""
        if seconds > SECONDS:
            self.most = max(1, int(number * SECONDS / seconds))
        elif number == self.most and seconds < SECONDS / 2:
            self.most = min(self._limit, 2 * self.most)
