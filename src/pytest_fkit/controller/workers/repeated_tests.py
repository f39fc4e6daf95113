"""Between the schedule, which knows numbers, and those who repeat tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Mapping, Sequence

from ...own import own_builtins
from ...protocol.border import Facts
from ...protocol.repetitions import ByTest, test_of
from ..schedule.collected import Collected
from ..schedule.schedule import Schedule
from ..schedule.units import Test, Unit, connected_units, one_unit, soft_units
from .planning import Plan

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from .dispatch import Dispatch

own_builtins(globals())


class RepeatedTests:
    """See :class:`..repeat.repeating.Repeatable`.

    :param known: what workers collected, those that are gone included.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        schedule: Schedule,
        planned: Plan,
        known: Mapping[WorkerController, Collected],
    ) -> None:
        self._dispatch = dispatch
        self._schedule = schedule
        self._planned = planned
        self._known = known

    def number(self, node: WorkerController, position: int) -> int:
        return self._known[node].number(position)

    def begins(self, node: WorkerController, position: int) -> None:
        self._dispatch.begins(node, position)

    def completed(self, node: WorkerController, position: int, seconds: float) -> None:
        self._dispatch.mark_test_complete(node, position, seconds)

    def add(self, numbers: Sequence[int]) -> None:
        self._schedule.add_units(units(self._planned, numbers, self._dispatch.numnodes))

    def want_only(self, wanted: Callable[[int], bool]) -> None:
        self._schedule.want_only(wanted)

    @property
    def unfinished(self) -> int:
        return self._schedule.unfinished

    @property
    def workers(self) -> int:
        return self._dispatch.numnodes


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
