"""Tests as the controller's schedule sends them, and takes them back."""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Mapping, Sequence

from ...own import own_builtins, threading
from ...protocol.border import (
    GoOn,
    Holds,
    LendGpus,
    Order,
    ProbeGpus,
    RecallTests,
    Returned,
    RunTests,
    Settle,
    Waits,
)
from .tests import Taken

own_builtins(globals())


class Dispatched:
    """What this worker has to run; filled in execnet's receiver thread, emptied in the main one.

    :param send: sends a message to the controller.
    :param probe: tries this worker's GPUs; its answer is whether they are fit for tests.
    """

    waits = False

    def __init__(
        self,
        send: Callable[[Waits | Returned | Holds], object],
        probe: Callable[[], bool] | None = None,
    ) -> None:
        self._send = send
        self._probe = probe
        self._in_doubt = probe is not None
        self._asked = False
        self._environs: dict[int, Mapping[str, str]] = {}
        self._changed = threading.Condition()
        self._queue: deque[int] = deque()
        self._kept = 0
        self._hold = 0
        self._holds = False
        self._told = False
        self._settles = False
        self._over = False

    # --- the controller says ---

    def obey(self, order: Order) -> None:
        """Take in what it says."""
        if isinstance(order, RunTests):
            self.add(order.positions)
        elif isinstance(order, RecallTests):
            self.recall(order.positions, order.whole)
        elif isinstance(order, LendGpus):
            self.lend(order.position, order.environ)
        elif isinstance(order, Settle):
            self.settle()
        elif isinstance(order, GoOn):
            self.go_on(order.hold)
        elif isinstance(order, ProbeGpus):
            self.probe()

    def lend(self, position: int, environ: Mapping[str, str]) -> None:
        """Run one test in a fresh interpreter with these variables."""
        with self._changed:
            self._environs[position] = environ
        self.add([position])

    def probe(self) -> None:
        """The GPUs are to be tried now."""
        with self._changed:
            self._asked = self._probe is not None
            self._changed.notify()

    def doubt(self) -> None:
        """The GPUs are to be tried before the next test; called in any thread."""
        with self._changed:
            self._in_doubt = self._probe is not None

    def _is_to_be_probed(self) -> bool:
        return self._asked or (self._in_doubt and bool(self._queue))

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

    def go_on(self, hold: int) -> None:
        """Begin tests again, unless it was held once more since that hold."""
        with self._changed:
            if hold == self._hold:
                self._holds = self._told = False
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
            for each in given:
                self._environs.pop(each, None)
            rest = [each for each in list(self._queue)[self._kept :] if each not in wanted]
            self._queue = deque([*kept, *rest])
        self._send(Returned(tuple(given)))

    def end(self) -> None:
        """There will be no more; what was not begun is not wanted either."""
        with self._changed:
            self._over = True
            self._changed.notify()

    # --- the test loop asks ---

    def hold(self, position: int = -1, error: dict[str, Any] | None = None) -> None:
        """Begin no test before the controller says so; see :class:`.border.Holds`."""
        with self._changed:
            self._holds = True
            self._hold += 1
        self._send(Holds(self._hold, position, error))

    def take(self, most: int) -> Taken | None:
        """See Tests."""
        while True:
            with self._changed:
                doubt = self._is_to_be_probed() and not self._over
                if doubt:
                    self._asked = self._in_doubt = False
            if not doubt:
                taken = self._wait(most)
                if taken is not None or self._over:
                    return taken
            elif self._probe is not None and not self._probe():
                self.recall(list(self._queue), whole=False)
                self.hold()

    def _wait(self, most: int) -> Taken | None:
        """None where there is nothing more, or something to be tried first."""
        with self._changed:
            while not (self._may_begin or self._settles or self._over or self._is_to_be_probed()):
                if not (self._told or self._holds):
                    self._told = True
                    self._send(Waits())
                self._changed.wait()
            if self._over or self._is_to_be_probed():
                return None
            if not self._may_begin:
                self._settles = False
                return Taken([], None)
            self._kept = 0
            if self._queue[0] in self._environs:
                position = self._queue.popleft()
                return Taken([position], None, False, self._environs.pop(position))
            positions = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
            return Taken(positions, self._queue[0] if self._queue else None, certain=False)

    @property
    def _may_begin(self) -> bool:
        return bool(self._queue) and not self._holds

    def put_back(self, positions: Sequence[int]) -> None:
        """See Tests."""
        with self._changed:
            self._queue.extendleft(reversed(positions))

    def keeps(self, following: int | None) -> bool:
        """See Tests; what is held, or waits for a probe, may have to be given back."""
        with self._changed:
            if self._holds or self._in_doubt:
                return False
            if following is None or not self._queue or self._queue[0] != following:
                return False
            self._kept = 1
            return True
