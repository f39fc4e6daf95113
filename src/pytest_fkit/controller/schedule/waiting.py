"""Units that no worker has, in the order in which they are to go."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from typing import Callable, Collection, Iterable, Iterator, NamedTuple

from ...own import own_builtins
from .units import Kind, Unit

own_builtins(globals())

LOOK = 50
"""Tests of a row among which one is looked for that is quick enough."""


class Entry(NamedTuple):
    """A unit.

    :param rank: the one that it had when it came.
    :param ticket: which no other has.
    """

    rank: tuple[float, int]
    ticket: int
    unit: Unit


class Waiting:
    """Units by the kinds of their tests.

    :param known: seconds that a test is known to take, None if nobody knows.
    """

    def __init__(self, known: Callable[[int], float | None]) -> None:
        self._known = known
        self._heaps: dict[Kind, list[Entry]] = {}
        self._ticket = itertools.count()

    def add(self, unit: Unit) -> None:
        """Nobody has this unit, or what is left of it."""
        heap = self._heaps.setdefault(unit.kind, [])
        heapq.heappush(heap, Entry(unit.rank, next(self._ticket), unit))

    def remove(self, entry: Entry) -> None:
        """Somebody has it."""
        heap = self._heaps[entry.unit.kind]
        if heap[0] is entry:
            heapq.heappop(heap)
        else:
            heap.remove(entry)
            heapq.heapify(heap)

    def heads(self, wanted: Callable[[Kind], bool]) -> list[Entry]:
        """The first of each kind that is wanted."""
        return [heap[0] for kind, heap in self._heaps.items() if heap and wanted(kind)]

    def by_kind(self) -> Iterator[tuple[Kind, list[Entry]]]:
        """All, in no order."""
        for kind, heap in self._heaps.items():
            if heap:
                yield kind, list(heap)

    def first(self, wanted: Callable[[Kind], bool], lacks: Collection[int]) -> Entry | None:
        """The first of all that are wanted.

        :param lacks: tests that are not.
        """
        entries = (
            entry
            for kind, heap in self._heaps.items()
            if heap and wanted(kind)
            for entry in _first(heap, lacks)
        )
        return min(entries, default=None)

    def take(self, entry: Entry, lacks: Collection[int]) -> Unit:
        """The unit, or of one whose tests have nothing in common, a unit with some."""
        unit = entry.unit
        if unit.loose and unit.tests[0] in lacks:
            return self.take_one(entry, next(test for test in unit.tests if test not in lacks))
        if not unit.loose or len(unit.tests) == 1:
            self.remove(entry)
        return unit

    def take_one(self, entry: Entry, test: int) -> Unit:
        """A unit of nothing but the test."""
        unit = entry.unit
        unit.tests.remove(test)
        if not unit.tests:
            self.remove(entry)
        return Unit(unit.rank, unit.kind, deque([test]), loose=True)

    def quick(
        self,
        wanted: Callable[[Kind], bool],
        lacks: Collection[int],
        seconds: float,
        in_order: bool,
    ) -> tuple[Entry, int] | None:
        """A test that is known to take no longer than that, and may go alone.

        :param in_order: whether it has to be the very first.
        """
        entries: Iterable[Entry] = itertools.chain.from_iterable(
            heap for kind, heap in self._heaps.items() if wanted(kind)
        )
        if in_order:
            entries = heapq.nsmallest(1, entries)
        found = []
        for entry in entries:
            unit = entry.unit
            if unit.strict and len(unit.tests) > 1:
                continue  # one worker has to run them all
            look = LOOK if unit.loose and not in_order else 1
            test = self.fitting(itertools.islice(unit.tests, look), lacks, seconds)
            if test is not None:
                found.append((entry, test))
        return min(found, default=None)

    def fitting(self, tests: Iterable[int], lacks: Collection[int], seconds: float) -> int | None:
        """The first of these that is known to take no longer than that."""
        for test in tests:
            known = self._known(test)
            if known is not None and known <= seconds and test not in lacks:
                return test
        return None


def _first(heap: list[Entry], lacks: Collection[int]) -> list[Entry]:
    if not lacks or heap[0].unit.tests[0] not in lacks:
        return heap[:1]
    return heapq.nsmallest(1, (entry for entry in heap if _has_first(entry.unit, lacks)))


def _has_first(unit: Unit, lacks: Collection[int]) -> bool:
    tests = unit.tests if unit.loose else itertools.islice(unit.tests, 1)
    return any(test not in lacks for test in tests)
