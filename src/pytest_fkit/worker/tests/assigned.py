"""Tests as xdist's own schedulers assign them, which take none back."""

from __future__ import annotations

from typing import Sequence

from ...compat import xdist_worker
from ...own import own_builtins
from .tests import Taken

own_builtins(globals())


class Assigned:
    """See :class:`.tests.Tests`."""

    waits = True

    def __init__(self, source: xdist_worker.AssignedTests) -> None:
        self._source = source
        self._back: list[int] = []
        self._following: int | None = None

    def take(self, most: int) -> Taken | None:
        """Wait for what follows the test, too."""
        taken, self._back = self._back[:most], self._back[most:]
        if not taken:
            taken, self._following = self._source.take(most)
        return Taken(taken, self._back[0] if self._back else self._following) if taken else None

    def put_back(self, positions: Sequence[int]) -> None:
        """They come first."""
        self._back = [*positions, *self._back]

    def keeps(self, following: int | None) -> bool:
        """Nothing else can come."""
        del following
        return True
