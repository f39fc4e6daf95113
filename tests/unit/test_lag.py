"""Workers far away: messages take their time, and nobody waits for them."""

from __future__ import annotations

import functools
import heapq
import itertools
from collections import deque
from typing import Any, Callable

import pytest

from pytest_fkit.controller.schedule.known_workers import Recall, Send
from pytest_fkit.controller.schedule.schedule import Schedule
from pytest_fkit.controller.schedule.units import ANY, soft_units
from pytest_fkit.controller.schedule.units import Test as Known

SECONDS, OVERHEAD = 0.005, 0.006
"""That a test takes, and beyond that."""


class Simulation:
    """A run whose messages are under way for half of the lag.

    :param known: whether the schedule knows of the lag.
    """

    def __init__(self, tests: int, workers: int, lag: float, known: bool = True) -> None:
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._way = lag / 2
        self._queues: dict[str, deque[int]] = {}
        self._busy: set[str] = set()
        self.ended: list[int] = []
        self._schedule = Schedule([None] * tests, OVERHEAD)
        units = soft_units([Known(each, "", None, ANY) for each in range(tests)], sort=True)
        self._schedule.add_units(units)
        for name in (f"gw{each}" for each in range(workers)):
            self._queues[name] = deque()
            self._schedule.add_worker(name, lag=lag if known else 0.0)

    def run(self) -> float:
        """The seconds that it takes."""
        self._decide()
        while self._events:
            self._now, _, event = heapq.heappop(self._events)
            event()
        return self._now

    def _later(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._number), event))

    def _decide(self) -> None:
        for decision in self._schedule.decide():
            if isinstance(decision, (Send, Recall)):
                self._later(self._way, functools.partial(self._obey, decision))

    def _tell(self, tell: Callable[[], Any]) -> None:
        def hear() -> None:
            tell()
            self._decide()

        self._later(self._way, hear)

    def _obey(self, decision: Send | Recall) -> None:
        name, queue = decision.worker, self._queues[decision.worker]
        if isinstance(decision, Send):
            queue.extend(decision.tests)
            if name not in self._busy:
                self._begin(name)
            return
        back = [test for test in decision.tests if test in queue]
        for test in back:
            queue.remove(test)
        self._tell(lambda: self._schedule.returned(name, back))

    def _begin(self, name: str) -> None:
        if not self._queues[name]:
            self._busy.discard(name)
            self._tell(lambda: self._schedule.waits(name))
            return
        self._busy.add(name)
        test = self._queues[name].popleft()
        self._tell(lambda: self._schedule.begins(name, test))
        self._later(SECONDS + OVERHEAD, lambda: self._end(name, test))

    def _end(self, name: str, test: int) -> None:
        self.ended.append(test)
        self._tell(lambda: self._schedule.completed(name, test, SECONDS))
        self._begin(name)


@pytest.mark.parametrize("lag", [0.05, 0.3])
def test_workers_far_away_have_enough_to_do(lag: float) -> None:
    tests = 1500
    near, far = Simulation(tests, 2, 0.0), Simulation(tests, 2, lag)
    seconds = near.run(), far.run()
    assert sorted(near.ended) == sorted(far.ended) == list(range(tests))
    # To the first tests, and from the last ones.
    assert seconds[1] < seconds[0] * 1.02 + 4 * lag
    if lag == 0.3:
        assert Simulation(tests, 2, lag, known=False).run() > seconds[1] * 1.1
