"""The pages that tests write to, so that a child that waits has its copies of them already."""

from __future__ import annotations

import sys
from typing import AbstractSet, Callable

from ...own import own_builtins
from ...system import pages
from . import early_end

own_builtins(globals())

MOST = 4096
"""Pages; more of them are a test's own data, not what every test writes to."""

_FIRST = 2
"""The first child that tells what it writes to: what the one before does once is not typical."""

_AGAIN = 1000
"""Children until it is asked again."""

_TRIES = 4
"""Children that may be asked for two answers."""


class WorkingSet:
    """Of a host: learns from two children what both write to.

    Each page that a child writes to is copied when it does so, which takes the greater part of the
    time of a small test. The next child, which waits while a test runs, can have that behind it.

    :param own: those of some pages that this process has; its children have others, too.
    """

    def __init__(self, own: Callable[[AbstractSet[int]], AbstractSet[int]] = pages.mapped) -> None:
        self._own = own
        can = early_end.SUPPORTED and pages.can_copy()
        self._until_asked = _FIRST if can else sys.maxsize
        self._asked = 0
        self._written: frozenset[int] | None = None
        self.common = pages.Vectors(())
        """What a child is to copy while it waits, but for one that is to tell."""

    @property
    def is_wanted(self) -> bool:
        """Whether the next child is to tell what it writes to."""
        return self._until_asked <= 1

    @property
    def allows_ahead(self) -> bool:
        """Whether a child may be forked while another runs.

        Not while that one is to tell, since the host's own writes would look like the child's, and
        not if this one is to, which would be about to copy ahead.
        """
        return self._until_asked > 2

    def ended(self, written: tuple[int, ...]) -> None:
        """Take in that a child has ended.

        :param written: numbers of the pages it wrote to, if it told.
        """
        if not self.is_wanted:
            self._until_asked -= 1
            return
        self._asked += 1
        if written and self._written is not None:
            common = self._own(self._written.intersection(written))
            self.common = pages.Vectors(pages.ranges(common))
            self._begin_anew()
        elif written:
            self._written = frozenset(written)
        elif self._asked == _TRIES:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._until_asked, self._asked, self._written = _AGAIN, 0, None
