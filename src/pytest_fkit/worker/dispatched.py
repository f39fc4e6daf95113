"""Tests as the controller's schedule sends them, and takes them back."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Callable, Sequence

from .tests import Taken


class Dispatched:
    """What this worker has to run; filled in execnet's receiver thread, emptied in the main one.

    :param send: sends a message to the controller.
    """

    waits = False

    def __init__(self, send: Callable[[tuple[Any, ...]], None]) -> None:
        self._send = send
        self._changed = threading.Condition()
        self._queue: deque[int] = deque()
        self._kept = 0
        self._told = False
        self._settles = False
        self._over = False

    # --- the controller says ---

    def obey(self, order: str, *values: Any) -> None:
        """Take in what it says."""
        if order == "run":
            self.add(*values)
        elif order == "recall":
            self.recall(*values)
        elif order == "settle":
            self.settle()

    def add(self, positions: Sequence[int]) -> None:
        """Run these, after what is there."""
        with self._changed:
            self._queue.extend(positions)
            self._told = self._settles = False
            self._changed.notify()

    def settle(self) -> None:
        """There is nothing at the moment."""
        with self._changed:
            self._settles = True
            self._changed.notify()

    def recall(self, positions: Sequence[int], whole: bool) -> None:
        """Give back what of these is here.

        :param whole: all or none.
        """
        with self._changed:
            wanted = set(positions)
            kept = list(self._queue)[: self._kept]
            given = [each for each in list(self._queue)[self._kept :] if each in wanted]
            if whole and len(given) < len(wanted):
                given = []
            wanted = set(given)
            rest = [each for each in list(self._queue)[self._kept :] if each not in wanted]
            self._queue = deque([*kept, *rest])
        self._send(("returned", given))

    def end(self) -> None:
        """There will be no more; what was not begun is not wanted either."""
        with self._changed:
            self._over = True
            self._changed.notify()

    # --- the test loop asks ---

    def take(self, most: int) -> Taken | None:
        """See Tests."""
        with self._changed:
            while not self._queue and not self._over and not self._settles:
                if not self._told:
                    self._told = True
                    self._send(("waits",))
                self._changed.wait()
            if self._over:
                return None
            if not self._queue:
                self._settles = False
                return Taken([], None)
            positions = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
            self._kept = 0
            return Taken(positions, self._queue[0] if self._queue else None, certain=False)

    def put_back(self, positions: Sequence[int]) -> None:
        """See Tests."""
        with self._changed:
            self._queue.extendleft(reversed(positions))

    def keeps(self, following: int | None) -> bool:
        """See Tests."""
        with self._changed:
            if following is None or not self._queue or self._queue[0] != following:
                return False
            self._kept = 1
            return True
