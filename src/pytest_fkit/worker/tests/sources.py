"""Where the tests of a worker come from, and how many it asks for at once."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Callable, Generator, Mapping, Protocol, Sequence

import pytest

from ...named_tuple import NamedTuple
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
    TearDown,
    Waits,
)
from ...protocol.event_file import GpuError

if TYPE_CHECKING:
    from ...compat import xdist_worker

own_builtins(globals())


class Taken(NamedTuple):
    """Tests to run now; none if there is nothing at the moment and everything is to be torn down.

    :param positions: in ``session.items``.
    :param following: position of the test after these, None if there is none.
    :param certain: whether nothing else can follow; if not, see :meth:`Tests.keeps`.
    :param environ: variables of the only test, which is to run in a fresh interpreter.
    """

    positions: list[int]
    following: int | None
    certain: bool = True
    environ: Mapping[str, str] | None = None


class Tests(Protocol):
    """The tests that a worker is to run.

    :param waits: whether :meth:`take` may have to wait for what :meth:`keeps` promised.
    """

    waits: bool

    def take(self, most: int) -> Taken | None:
        """Wait for a test; take more, up to `most`, if they are there; None if there are none."""

    def put_back(self, positions: Sequence[int], ordered: int = 0) -> None:
        """Return the last of the tests taken, which were not begun.

        :param ordered: how many of these are ordered already: the next ones, whatever happens.
        """

    def keeps(self, following: int | None) -> bool:
        """Whether this test will be taken next, whatever happens meanwhile."""


class AllTests:
    """All tests of a session, in order; see :class:`Tests`."""

    waits = False

    def __init__(self, number: int) -> None:
        self._number = number
        self._next = 0

    def take(self, most: int) -> Taken | None:
        taken = list(range(self._next, min(self._next + most, self._number)))
        self._next += len(taken)
        following = self._next if self._next < self._number else None
        return Taken(taken, following) if taken else None

    def put_back(self, positions: Sequence[int], ordered: int = 0) -> None:
        del ordered
        self._next -= len(positions)

    def keeps(self, following: int | None) -> bool:
        del following
        return True


class Assigned:
    """Tests as xdist's own schedulers assign them, which take none back; see :class:`Tests`."""

    waits = True

    def __init__(self, source: xdist_worker.AssignedTests) -> None:
        self._source = source
        self._back: list[int] = []
        self._following: int | None = None

    def take(self, most: int) -> Taken | None:
        """Wait for the test that follows these, too."""
        taken, self._back = self._back[:most], self._back[most:]
        if not taken:
            taken, self._following = self._source.take(most)
        return Taken(taken, self._back[0] if self._back else self._following) if taken else None

    def put_back(self, positions: Sequence[int], ordered: int = 0) -> None:
        del ordered
        self._back = [*positions, *self._back]

    def keeps(self, following: int | None) -> bool:
        del following
        return True  # nobody takes a test back


class Dispatched:
    """Tests as the controller's schedule sends them, and takes them back; see :class:`Tests`.

    Filled in execnet's receiver thread, emptied in the main one.

    :param probe: probes this worker's GPUs; returns whether they are fit for tests.
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
        self._ordered = 0
        self._hold = 0
        self._holds = False
        self._told = False
        self._settles = False
        self._over = False

    # --- orders of the controller ---

    def obey(self, order: Order) -> None:
        if isinstance(order, RecallTests):
            self.recall(order.positions, order.whole)
            return
        with self._changed:
            if isinstance(order, LendGpus):
                self._environs[order.position] = order.environ
                self._add([order.position])
            elif isinstance(order, RunTests):
                self._add(order.positions)
            elif isinstance(order, TearDown):
                self._settles = True
            elif isinstance(order, GoOn) and order.hold == self._hold:  # else there was another
                self._holds = self._told = False
            elif isinstance(order, ProbeGpus):
                self._asked = self._probe is not None
            self._changed.notify()

    def _add(self, positions: Sequence[int]) -> None:
        self._queue.extend(positions)
        self._told = self._settles = False

    def doubt(self) -> None:
        """Have the GPUs probed before the next test; called in any thread."""
        with self._changed:
            self._in_doubt = self._probe is not None

    def _is_to_be_probed(self) -> bool:
        return not self._ordered and (self._asked or (self._in_doubt and bool(self._queue)))

    def recall(self, positions: Sequence[int], whole: bool) -> None:
        """Give back those of these tests that were not begun.

        :param whole: all or none.
        """
        with self._changed:
            queue, wanted = list(self._queue), set(positions)
            given = [each for each in queue[self._kept :] if each in wanted]
            if whole and len(given) < len(wanted):
                given = []
            for each in given:
                self._environs.pop(each, None)
            rest = [each for each in queue[self._kept :] if each not in set(given)]
            self._queue = deque([*queue[: self._kept], *rest])
        self._send(Returned(tuple(given)))

    def end(self) -> None:
        """End the tests: begin none of those in the queue either."""
        with self._changed:
            self._over = True
            self._changed.notify()

    # --- calls of the test loop ---

    def hold(self, position: int = -1, error: GpuError | None = None) -> None:
        """Begin no test until the controller sends GoOn; see :class:`.border.Holds`."""
        with self._changed:
            self._holds = True
            self._hold += 1
        self._send(Holds(self._hold, position, error))

    def take(self, most: int) -> Taken | None:
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
        """Wait for tests; None where there are no more, or the GPUs have to be probed first."""
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
            self._kept = self._ordered = 0
            if self._queue[0] in self._environs:
                position = self._queue.popleft()
                return Taken([position], None, False, self._environs.pop(position))
            positions = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
            return Taken(positions, self._queue[0] if self._queue else None, certain=False)

    @property
    def _may_begin(self) -> bool:
        return bool(self._queue) and (not self._holds or bool(self._ordered))

    def put_back(self, positions: Sequence[int], ordered: int = 0) -> None:
        with self._changed:
            self._queue.extendleft(reversed(positions))
            self._ordered = self._kept = ordered

    def keeps(self, following: int | None) -> bool:
        """See :class:`Tests`; tests that are held, or wait for a probe, may be called back."""
        with self._changed:
            if self._ordered:
                return True
            if self._holds or self._in_doubt:
                return False
            if following is None or not self._queue or self._queue[0] != following:
                return False
            self._kept = 1
            return True


class Resumed:
    """Plugin of every process that collects: leaves out tests that an earlier run has a verdict on.

    :param done: how many verdicts there are, by node id.
    :param tell: called with the node ids of the tests that are left out, and of the others.
    """

    def __init__(
        self, done: Mapping[str, int], tell: Callable[[list[str], list[str]], object]
    ) -> None:
        self._done = done
        self._tell = tell

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """After all other plugins, which select and rename tests."""
        result = yield
        left = Counter(self._done)
        found: list[str] = []
        rest: list[pytest.Item] = []
        for item in items:
            if left[item.nodeid] > 0:
                left[item.nodeid] -= 1
                found.append(item.nodeid)
            else:
                rest.append(item)
        items[:] = rest
        self._tell(found, [item.nodeid for item in rest])
        return result
