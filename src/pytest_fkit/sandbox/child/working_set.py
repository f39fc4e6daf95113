"""Learns which pages tests write to, so that a child forked ahead copies them while it waits."""

from __future__ import annotations

import sys
from typing import AbstractSet, Callable, Collection

from ...own import array, mmap, own_builtins
from ...system import pages

own_builtins(globals())

MAX_PAGES = 4096
"""Pages; a child that writes to more has data of its own, which says nothing of other tests."""

_FIRST_ASKED = 2
"""The first child that reports its pages; the one before it does things once, so is not typical."""

_INTERVAL = 1000
"""Children from one pair of reports to the next."""

_TRIES = 4
"""Children that are asked, at most, to get two reports."""


class WorkingSet:
    """The pages that two children of a host have both written to.

    The kernel copies each page when a child first writes to it, which is most of the time of a
    small test. A child forked ahead can get that done while it waits.

    :param own: returns those of the given pages that are mapped here; children map others, too.
    """

    def __init__(self, own: Callable[[AbstractSet[int]], AbstractSet[int]] = pages.mapped) -> None:
        self._own = own
        can = pages.can_copy()
        self._until_asked = _FIRST_ASKED if can else sys.maxsize
        self._asked = 0
        self._written: frozenset[int] | None = None
        # Shared with children: numbers of pages, the rest 0.
        self._told = mmap.mmap(-1, MAX_PAGES * 8) if can else None
        self.common = pages.Vectors(())
        """The pages that a child is to copy while it waits, unless it is to report its pages."""
        self.is_wanted = False
        """Whether the next child is to report which pages it writes to."""
        self.allows_ahead = True
        """Whether a child may be forked while another runs.

        Not while the running one is to report, since the host's own writes would look like its
        own; and not if the new one is to report, which must not copy ahead.
        """
        self._look_ahead()

    def tell(self, written: Collection[int]) -> None:
        """In a child that is to report: tell the host the numbers of the pages it wrote to.

        By memory, which takes no system call that would count as the test's.
        """
        if self._told is not None and len(written) <= MAX_PAGES:
            data = array.array("Q", written).tobytes()
            self._told[: len(data)] = data

    def _take(self) -> frozenset[int]:
        assert self._told is not None
        found = frozenset(array.array("Q", self._told[:])) - {0}
        self._told[:] = bytes(len(self._told))
        return found

    def ended(self) -> None:
        """Count a child that has ended, and use its report, if it has made one."""
        if not self.is_wanted:
            self._until_asked -= 1
            if self._until_asked <= 2:
                self._look_ahead()
            return
        self._asked += 1
        written = self._take()
        if written and self._written is not None:
            common = self._own(self._written.intersection(written))
            self.common = pages.Vectors(pages.ranges(common))
            self._restart()
        elif written:
            self._written = written
        elif self._asked == _TRIES:
            self._restart()

    def _restart(self) -> None:
        self._until_asked, self._asked, self._written = _INTERVAL, 0, None
        self._look_ahead()

    def _look_ahead(self) -> None:
        self.is_wanted = self._until_asked <= 1
        self.allows_ahead = self._until_asked > 2
