"""What the schedule knows of a worker, and what it decides for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Sequence, Union

from ...named_tuple import NamedTuple
from ...own import own_builtins
from .units import Kind, Unit

own_builtins(globals())

_FIRST_GUESS = 0.1
"""Expected seconds of a test, before any has ended on its worker."""

AHEAD = 0.4
"""Seconds of tests in a worker's queue: some hundred round trips."""

_WINDOW = 20
"""How many tests the mean duration of a worker's tests covers."""


@dataclass
class KnownWorker:
    """A worker.

    :param gpus: those that it owns, in their order.
    :param lacks: tests that it did not collect.
    :param cpu: whether it has no GPUs where others have some.
    :param memory: bytes of its GPUs, 0 where unknown.
    :param slots: how many workers may share its GPUs; 1: nobody asks what tests need of them.
    :param lag: seconds that a message to it and its answer take.
    :param machine: where it runs, as in "n1/".
    :param queue: tests that it was sent and has not begun, with the unit of each.
    :param waits: whether it has said that it has nothing to run.
    :param through: whether it has said so since it began its last test, which may not have its
        verdict before it is known what follows.
    :param settled: whether it was told to tear down since.
    :param held: whether it begins nothing before it is told to go on.
    :param paused: whether it gets nothing to begin because workers with the same GPUs hold.
    :param suspect: whether its GPUs have not shown that they work, since a test failed there.
    :param recalled: what it was asked to give back and has not answered for.
    :param refused: what it could not give back, since it began or ended a test last.
    :param mean: seconds that its tests take.
    """

    name: str
    order: int
    gpus: tuple[str, ...]
    lacks: frozenset[int]
    cpu: bool
    memory: tuple[int, ...] = ()
    slots: int = 1
    lag: float = 0.0
    machine: str = ""
    queue: dict[int, Unit] = field(default_factory=dict)
    running: int | None = None
    running_unit: Unit | None = None
    waits: bool = True
    through: bool = False
    settled: bool = True
    retired: bool = False
    held: bool = False
    paused: bool = False
    suspect: bool = False
    unit: Unit | None = None
    recalled: frozenset[int] = frozenset()
    refused: set[int] = field(default_factory=set)
    mean: float = _FIRST_GUESS
    ended: int = 0

    @property
    def enough(self) -> float:
        """Seconds of tests to have in its queue.

        It is filled up at half of that, and what has ended meanwhile is heard of late.
        """
        return AHEAD + 2 * self.lag

    @property
    def stopped(self) -> bool:
        return self.held or self.paused

    @property
    def is_free(self) -> bool:
        """Whether it has nothing, not even wide fixtures."""
        return self.waits and self.settled and self.running is None and not self.queue

    def could(self, kind: Kind) -> bool:
        """Whether it could run such a test by itself."""
        if self.retired or not kind.avoid.isdisjoint((self.machine, *self.gpus)):
            return False
        if kind.gpus is None:
            return not self.cpu
        return kind.gpus <= len(self.gpus)

    def go_on_to(self, test: int) -> None:
        """It turns out to run this one of its queue, so put the one before back into the queue."""
        before, unit = self.running, self.running_unit
        self.running, self.running_unit = test, self.queue.pop(test)
        if before is not None and unit is not None:
            self.queue = {before: unit, **self.queue}

    def took(self, seconds: float) -> None:
        self.ended += 1
        self.mean += (seconds - self.mean) / min(self.ended, _WINDOW)


@dataclass
class Estimates:
    """How long tests take.

    :param seconds: by test, None where unknown.
    :param overhead: seconds that a test takes beyond that.
    """

    seconds: Sequence[float | None]
    overhead: float

    def on(self, worker: KnownWorker, test: int) -> float:
        """Seconds; where unknown, as many as the worker's tests take on average."""
        seconds = self.seconds[test]
        return worker.mean if seconds is None else seconds + self.overhead


class Send(NamedTuple):
    """The worker is to run these, after what it has."""

    worker: str
    tests: tuple[int, ...]


class Recall(NamedTuple):
    """The worker is to give back those of these that it has not begun.

    :param whole: whether it is to give back all or none.
    """

    worker: str
    tests: tuple[int, ...]
    whole: bool = False


class SettleWorker(NamedTuple):
    """There is nothing for the worker now: it is to tear down."""

    worker: str


class Lend(NamedTuple):
    """The worker is to run the test with these GPUs, which nobody else uses now."""

    worker: str
    test: int
    gpus: tuple[str, ...]


class Unrunnable(NamedTuple):
    """No worker is left that could run the test."""

    test: int


Decision = Union[Send, Recall, SettleWorker, Lend, Unrunnable]
