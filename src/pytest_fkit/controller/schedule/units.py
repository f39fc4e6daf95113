"""Tests put together into units, and the queue in which units wait for a worker."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Callable, Collection, Iterator, Mapping, Sequence

from ...named_tuple import NamedTuple
from ...own import own_builtins

own_builtins(globals())

QUICK = 0.2
"""Seconds from which on it is worth moving a test to an earlier place."""


class Kind(NamedTuple):
    """What a test needs of a worker.

    :param gpus: how many, None for those of the worker.
    :param serial: two tests with the same name never run at once; "" for none.
    :param avoid: GPUs on which it must not run, and machines, as in "n1/".
    :param alone: whether nobody else may use its GPUs meanwhile.
    :param memory: bytes of each GPU, as far as the test says.
    :param share: whether it needs its share of each GPU that workers share.
    """

    gpus: int | None = None
    serial: str = ""
    avoid: frozenset[str] = frozenset()
    alone: bool = False
    memory: int = 0
    share: bool = True

    @property
    def without_memory(self) -> Kind:
        """The same, whatever it needs of GPUs that workers share."""
        return self._replace(memory=0, share=True)


ANY = Kind()


class Test(NamedTuple):
    """A test as the schedule knows it.

    :param number: its place in the order of collection.
    :param group: equal for tests that have something in common, "" for none.
    :param seconds: its expected duration, None if unknown.
    """

    number: int
    group: str = ""
    seconds: float | None = None
    kind: Kind = ANY


@dataclass
class Unit:
    """Tests of one kind that are moved together.

    :param rank: the lowest goes first.
    :param loose: whether they have nothing in common, so that any worker may take the next one.
    :param strict: whether one worker has to run them all.
    :param begun: whether one of them was begun where they are now.
    """

    rank: tuple[float, int]
    kind: Kind
    tests: deque[int] = field(default_factory=deque)
    loose: bool = False
    strict: bool = False
    begun: bool = False


# --- from tests to units ---


def strict_units(tests: Sequence[Test], expected: Callable[[int], float], sort: bool) -> list[Unit]:
    """One unit for each group and kind.

    :param expected: seconds by number.
    :param sort: whether the longest comes first; else they keep the order of their first tests.
    """
    found: dict[object, list[Test]] = {}
    for test in tests:
        found.setdefault((test.group or test.number, test.kind.without_memory), []).append(test)
    units = []
    for group in found.values():
        numbers = [test.number for test in group]
        memory = max(test.kind.memory for test in group)
        share = any(test.kind.share for test in group)
        units.append(
            Unit(
                rank=(-sum(map(expected, numbers)) if sort else 0.0, numbers[0]),
                kind=group[0].kind._replace(memory=memory, share=share),
                tests=deque(numbers),
                strict=True,
            )
        )
    return units


def connected_units(tests: Sequence[Test], connected: Mapping[int, int]) -> list[Unit]:
    """One unit for all tests that one worker has to run, in the order of their first tests.

    :param connected: by number, the first test of those that belong together.
    """
    together = [
        test._replace(group=str(connected[test.number]))
        for test in tests
        if test.number in connected
    ]
    return strict_units(together, lambda _: 0.0, sort=False)


def merged_groups(tests: Sequence[Test], connected: Mapping[int, int]) -> list[Test]:
    """The tests, with one group in place of all groups that contain connected tests."""
    into: dict[str, str] = {}

    def final(group: str) -> str:
        while group in into:
            group = into[group]
        return group

    by_number = {test.number: test for test in tests}
    for number, first in connected.items():
        one, other = final(by_number[number].group), final(by_number[first].group)
        if one != other:
            into[one] = other
    return [test._replace(group=final(test.group)) for test in tests]


def soft_units(tests: Sequence[Test], sort: bool) -> list[Unit]:
    """Neighbours of a group as a unit; tests without one alone if they are long, else in a row.

    :param sort: whether units with a long test come first, the longest before the others. Then
        tests of a group are neighbours, too, if only tests without one are between them.
    """
    runs: list[list[Test]] = []
    last: list[Test] = []  # the last one of a group
    for (group, _), found in itertools.groupby(tests, lambda test: _run_key(test, sort)):
        run = list(found)
        if sort and run[0].group and last and _run_key(last[0], sort) == (group, run[0].kind):
            last.extend(run)
            continue
        runs.append(run)
        if run[0].group:
            last = run
    return [_run_unit(run, sort) for run in runs]


def one_unit(tests: Sequence[Test]) -> list[Unit]:
    """All in the order of collection, as far as their kinds are the same."""
    runs = itertools.groupby(tests, lambda test: test.kind)
    return [_unit(list(run), 0.0, loose=True) for _, run in runs]


def _run_key(test: Test, sort: bool) -> tuple[object, Kind]:
    if test.group:
        return test.group, test.kind
    is_long = sort and test.seconds is not None and test.seconds >= QUICK
    return (test.number if is_long else ""), test.kind


def _run_unit(run: list[Test], sort: bool) -> Unit:
    longest = max(test.seconds or 0.0 for test in run)
    return _unit(run, -longest if sort and longest >= QUICK else 0.0, loose=not run[0].group)


def _unit(run: list[Test], rank: float, loose: bool) -> Unit:
    numbers = [test.number for test in run]
    return Unit((rank, numbers[0]), run[0].kind, deque(numbers), loose)


# --- waiting for a worker ---


class WaitingEntry(NamedTuple):
    """A waiting unit.

    :param rank: the one that it had when it was added.
    :param ticket: unique, to break ties.
    """

    rank: tuple[float, int]
    ticket: int
    unit: Unit


class Waiting:
    """Units that no worker has, by the kinds of their tests."""

    def __init__(self) -> None:
        self._heaps: dict[Kind, list[WaitingEntry]] = {}
        self._ticket = itertools.count()

    def add(self, unit: Unit) -> None:
        heap = self._heaps.setdefault(unit.kind, [])
        heapq.heappush(heap, WaitingEntry(unit.rank, next(self._ticket), unit))

    def remove(self, entry: WaitingEntry) -> None:
        heap = self._heaps[entry.unit.kind]
        if heap[0] is entry:
            heapq.heappop(heap)
        else:
            heap.remove(entry)
            heapq.heapify(heap)

    def heads(self, wanted: Callable[[Kind], bool]) -> list[WaitingEntry]:
        return [heap[0] for kind, heap in self._heaps.items() if heap and wanted(kind)]

    def by_kind(self) -> Iterator[tuple[Kind, list[WaitingEntry]]]:
        """All entries, in no order."""
        for kind, heap in self._heaps.items():
            if heap:
                yield kind, list(heap)

    def first(self, wanted: Callable[[Kind], bool], lacks: Collection[int]) -> WaitingEntry | None:
        """The first entry of all wanted kinds.

        :param lacks: tests that are not wanted.
        """
        entries = (
            entry
            for kind, heap in self._heaps.items()
            if heap and wanted(kind)
            for entry in _first(heap, lacks)
        )
        return min(entries, default=None)

    def take(self, entry: WaitingEntry, lacks: Collection[int]) -> Unit:
        """Take the unit; of a loose one, whose tests may be shared out, some tests."""
        unit = entry.unit
        if unit.loose and unit.tests[0] in lacks:
            return self.take_one(entry, next(test for test in unit.tests if test not in lacks))
        if not unit.loose or len(unit.tests) == 1:
            self.remove(entry)
        return unit

    def take_one(self, entry: WaitingEntry, test: int) -> Unit:
        """Take one test, as a unit of its own."""
        unit = entry.unit
        unit.tests.remove(test)
        if not unit.tests:
            self.remove(entry)
        return Unit(unit.rank, unit.kind, deque([test]), loose=True)


def _first(heap: list[WaitingEntry], lacks: Collection[int]) -> list[WaitingEntry]:
    if not lacks or heap[0].unit.tests[0] not in lacks:
        return heap[:1]
    return heapq.nsmallest(1, (entry for entry in heap if _has_wanted(entry.unit, lacks)))


def _has_wanted(unit: Unit, lacks: Collection[int]) -> bool:
    tests = unit.tests if unit.loose else itertools.islice(unit.tests, 1)
    return any(test not in lacks for test in tests)
