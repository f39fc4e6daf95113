"""What the schedule knows of a worker."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...own import own_builtins
from .units import Kind, Unit

own_builtins(globals())

_FIRST_GUESS = 0.1
"""Seconds for a test of which nothing is known, before the first one has ended."""

_WINDOW = 20
"""Tests over which the mean time of a worker's tests is taken."""


@dataclass
class Worker:
    """A worker.

    :param gpus: those that it owns, in their order.
    :param lacks: tests that it did not collect.
    :param cpu: whether it has none where others have.
    :param memory: bytes that its GPUs have, 0 where that is unknown.
    :param slots: how many workers may share its GPUs; 1: nobody asks what tests need of them.
    :param queue: what it was sent and has not begun, with the unit of each.
    :param waits: whether it said that it has nothing to run.
    :param through: whether it has said so since it began its last test, which may not have its
        verdict before it is known what follows.
    :param settled: whether it was told to tear down since.
    :param held: whether it begins nothing before it is told to go on.
    :param paused: whether it is to begin nothing, since others hold with whom it shares GPUs.
    :param suspect: whether its GPUs have not shown that they work, since a test failed there.
    :param recalled: what it was asked back and has not answered for.
    :param refused: what it could not give back, since it did something last.
    :param since: when it began its test, or was sent the one that it is about to begin.
    :param fruitless: see Schedule: the last time that nothing was found to fill a gap, and its
        seconds.
    :param mean: seconds that its tests take.
    """

    name: str
    order: int
    gpus: tuple[str, ...]
    lacks: frozenset[int]
    cpu: bool
    memory: tuple[int, ...] = ()
    slots: int = 1
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
    since: float = 0.0
    fruitless: tuple[int, float] = (-1, 0.0)
    mean: float = _FIRST_GUESS
    ended: int = 0

    @property
    def stopped(self) -> bool:
        """Whether it gets nothing to begin now."""
        return self.held or self.paused

    @property
    def is_free(self) -> bool:
        """Whether it has nothing, not even wide fixtures."""
        return self.waits and self.settled and self.running is None and not self.queue

    @property
    def pending(self) -> list[int]:
        """What it runs and is about to run; what it was asked back may be among that or not."""
        running = [] if self.running is None or self.through else [self.running]
        return [*running, *(test for test in self.queue if test not in self.recalled)]

    def could(self, kind: Kind) -> bool:
        """Whether it could run such a test by itself."""
        if self.retired or not kind.avoid.isdisjoint(self.gpus):
            return False
        if kind.gpus is None:
            return not self.cpu
        return kind.gpus <= len(self.gpus)

    def go_on_to(self, test: int) -> None:
        """It is running this one of its queue; the one before is in the queue again."""
        before, unit = self.running, self.running_unit
        self.running, self.running_unit = test, self.queue.pop(test)
        if before is not None and unit is not None:
            self.queue = {before: unit, **self.queue}

    def took(self, seconds: float) -> None:
        """A test of it took so long."""
        self.ended += 1
        self.mean += (seconds - self.mean) / min(self.ended, _WINDOW)
