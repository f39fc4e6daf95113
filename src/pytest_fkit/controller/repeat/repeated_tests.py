"""Between the schedule, which knows numbers, and those who repeat tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Mapping, Sequence

from ...named_tuple import NamedTuple
from ...own import own_builtins
from ...protocol.border import Facts
from ...protocol.repetitions import ByTest, test_of
from ..schedule.collected import Collected
from ..schedule.planning import Plan
from ..schedule.schedule import Schedule
from ..schedule.units import Test, Unit, connected_units, one_unit, soft_units

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from ..reports.accounting import Scheduler

own_builtins(globals())


class RepeatedTests(NamedTuple):
    """The tests of a run, for those who repeat them.

    :param known: what workers collected, those that are gone included.
    """

    dispatch: Scheduler
    schedule: Schedule
    planned: Plan
    known: Mapping[WorkerController, Collected]

    @property
    def workers(self) -> int:
        """How many the run begins with."""
        return self.dispatch.numnodes

    def number(self, node: WorkerController, position: int) -> int:
        """The number of the test at a position of a worker's collection."""
        return self.known[node].number(position)

    def add(self, numbers: Sequence[int]) -> None:
        """Run these, after those that are there."""
        self.schedule.add_units(units(self.planned, numbers, self.workers))


def units(planned: Plan, numbers: Sequence[int], workers: int) -> list[Unit]:
    """The units of repetitions, in this order.

    :param workers: how many the run begins with.
    """
    groups, kinds, connected = ByTest(planned.groups), ByTest(planned.kinds), planned.connected
    tests = [Test(number, groups[number], None, kinds[number]) for number in numbers]
    together = connected_units([test for test in tests if test.number in connected], connected)
    rest = [test for test in tests if test_of(test.number) not in connected]
    return [*together, *(one_unit(rest) if workers < 2 else soft_units(rest, sort=False))]


def reasons_for_once(
    known: Mapping[WorkerController, Collected], facts: Mapping[WorkerController, Facts]
) -> dict[int, str]:
    return {
        collected.number(position): reason
        for node, collected in known.items()
        if node in facts
        for position, reason in facts[node].once.items()
    }
