"""Which tests a worker runs next, and how many it asks for at once."""

from __future__ import annotations

from typing import Mapping, NamedTuple, Protocol, Sequence

from ...own import own_builtins

own_builtins(globals())

SECONDS = 0.2
"""What one order to a process that tests share is worth: a round trip costs about 1 ms."""

FIRST = 32
"""Tests to be asked for before it is known how long they take."""

MOST = 1024
"""Tests in one order."""


class Taken(NamedTuple):
    """Tests to run now, none if there is nothing at the moment and all is to be torn down.

    :param positions: in ``session.items``.
    :param following: position of the test after these, None if there is none.
    :param certain: whether nothing else can follow; if not, see :meth:`Tests.keeps`.
    :param environ: variables to be set for the only test, which is to run in a fresh interpreter.
    """

    positions: list[int]
    following: int | None
    certain: bool = True
    environ: Mapping[str, str] | None = None


class Tests(Protocol):
    """Where tests come from.

    :param waits: whether :meth:`take` may have to wait for what :meth:`keeps` promised.
    """

    waits: bool

    def take(self, most: int) -> Taken | None:
        """Wait for a test; take more, up to `most`, if they are there; None if there are none."""

    def put_back(self, positions: Sequence[int]) -> None:
        """These, the last of those taken, were not begun."""

    def keeps(self, following: int | None) -> bool:
        """Whether this is what will be taken next, whatever happens meanwhile."""


class AllTests:
    """All tests of a session, in order.

    :param number: of them.
    """

    waits = False

    def __init__(self, number: int) -> None:
        self._number = number
        self._next = 0

    def take(self, most: int) -> Taken | None:
        """See :class:`Tests`."""
        taken = list(range(self._next, min(self._next + most, self._number)))
        self._next += len(taken)
        following = self._next if self._next < self._number else None
        return Taken(taken, following) if taken else None

    def put_back(self, positions: Sequence[int]) -> None:
        """See :class:`Tests`."""
        self._next -= len(positions)

    def keeps(self, following: int | None) -> bool:
        """See :class:`Tests`."""
        del following
        return True


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
