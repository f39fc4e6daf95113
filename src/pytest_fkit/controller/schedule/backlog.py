"""The tests that no worker was sent yet, and which of them a worker may run next."""

from __future__ import annotations

import itertools
from collections import deque
from typing import Callable, Iterator, Mapping, Sequence

from ...own import own_builtins
from .gangs import Reservations
from .known_workers import Estimates, KnownWorker, Unrunnable
from .slots import Room
from .units import Kind, Unit, Waiting, WaitingEntry

own_builtins(globals())

SPLIT = 0.5
"""Seconds of tests that share something, from which on it is worth setting that up once more."""

_AGAIN = float("-inf")
"""Rank of tests that are to be run again."""


class Backlog:
    """Units that wait, and what workers were not sent yet of the units that they go on with.

    :param workers: all, by name; the Schedule's own.
    """

    def __init__(
        self,
        workers: Mapping[str, KnownWorker],
        reservations: Reservations,
        room: Room,
        estimates: Estimates,
    ) -> None:
        self._workers = workers
        self._reservations = reservations
        self._room = room
        self._estimates = estimates
        self._locked: set[str] = set()
        self._some_hold = False
        self._may_be_unrunnable = True
        self.waiting = Waiting()
        self.size = 0
        """How many tests are in it."""

    # --- in and out ---

    def add(self, unit: Unit) -> None:
        self.size += len(unit.tests)
        self._release(unit)

    def add_again(self, test: int, kind: Kind) -> None:
        self.add(Unit((_AGAIN, test), kind, deque([test]), loose=True))

    def _release(self, unit: Unit) -> None:
        if unit.tests:
            self.waiting.add(unit)
            self.changed()

    def give_up(self, worker: KnownWorker) -> None:
        """Leave the rest of the worker's unit to anybody."""
        unit, worker.unit = worker.unit, None
        if unit is not None:
            unit.begun = False
            self._release(unit)

    def stop(self, worker: KnownWorker) -> None:
        """The same for a worker that begins nothing now; a group that it has begun waits for it."""
        if worker.unit is not None and not (worker.unit.strict and worker.unit.begun):
            self.give_up(worker)

    def enqueue(self, worker: KnownWorker, unit: Unit) -> int:
        """Move the first test of a unit to the worker's queue; its number."""
        test = unit.tests.popleft()
        if unit.kind.serial:
            self._locked.add(unit.kind.serial)
        worker.queue[test] = unit
        self.size -= 1
        self._room.changed()
        return test

    def take_back(self, worker: KnownWorker, tests: Sequence[int]) -> None:
        """Return tests in the worker's queue to where they came from."""
        self._reservations.give_back(tests)
        units: dict[int, tuple[Unit, list[int]]] = {}
        for test in tests:
            unit = worker.queue.pop(test)
            self.unlock(unit)
            self.size += 1
            units.setdefault(id(unit), (unit, []))[1].append(test)
        for unit, back in units.values():
            if unit is not worker.unit:
                self._release(Unit(unit.rank, unit.kind, deque(back), unit.loose, unit.strict))
                continue
            unit.tests.extendleft(reversed(back))
            if unit.strict and not unit.begun:
                self.give_up(worker)

    def cancel(self, name: str) -> None:
        """Cancel the reservations of a worker whose tests were not given to their leaders."""
        for each in self._reservations.cancel(name):
            self.unlock(each.unit)
            self.size += not each.whole
            self._release(each.unit)

    def unlock(self, unit: Unit | None) -> None:
        """Allow other tests with the unit's serial name."""
        if unit is not None:
            self._locked.discard(unit.kind.serial)

    def changed(self) -> None:
        """Workers or units have changed."""
        self._some_hold = any(
            worker.stopped and not worker.retired for worker in self._workers.values()
        )
        self._may_be_unrunnable = True

    # --- who may run what ---

    def may_run(self, worker: KnownWorker, kind: Kind, locked: str = "") -> bool:
        """Whether the worker may run such a test now.

        :param locked: a serial name that does not count as locked.
        """
        held = kind.serial in self._locked and kind.serial != locked
        if held or not worker.could(kind) or self.is_for_others(worker, kind):
            return False
        return self._room.fits(worker, kind)

    def is_for_others(self, worker: KnownWorker, kind: Kind) -> bool:
        """Whether a suspect worker should leave the test, which failed elsewhere, to others."""
        return bool(worker.suspect and kind.avoid) and any(
            other.could(kind) and not (other.stopped or other.suspect or other.lacks)
            for other in self._workers.values()
        )

    def _takes(self, worker: KnownWorker, kind: Kind) -> bool:
        """The same, unless workers have to be kept free for it."""
        return self.may_run(worker, kind) and not self._reservations.needed(kind)

    def _may_go_on(self, worker: KnownWorker, unit: Unit) -> bool:
        return self.may_run(worker, unit.kind) and unit.tests[0] not in worker.lacks

    def is_runnable(self, kind: Kind, test: int | None, held: bool = True) -> bool:
        """Whether somebody could run such a test, now or later.

        :param held: whether workers that begin nothing now count.
        """
        if self._reservations.needed(kind):
            return self._reservations.possible(kind, test, held)
        return any(
            worker.could(kind) and (held or not worker.stopped) and test not in worker.lacks
            for worker in self._workers.values()
        )

    def pop_unrunnable(self) -> list[Unrunnable]:
        """Remove what nobody can run, if that may have changed."""
        if not self._may_be_unrunnable:
            return []
        self._may_be_unrunnable = False
        return list(self._unrunnable())

    def _unrunnable(self) -> Iterator[Unrunnable]:
        lacking = [worker.lacks for worker in self._workers.values() if worker.lacks]
        for kind, entries in self.waiting.by_kind():
            anybody = self.is_runnable(kind, None)
            if anybody and not lacking:
                continue
            for entry in entries:
                tests = entry.unit.tests
                for test in list(tests):
                    known = anybody and not any(test in lacks for lacks in lacking)
                    if not known and not self.is_runnable(kind, test):
                        tests.remove(test)
                        self.size -= 1
                        yield Unrunnable(test)
                if not tests:
                    self.waiting.remove(entry)

    def discard(self, wanted: Callable[[int], bool]) -> list[int]:
        """Remove what nobody wants any more; the numbers of those tests."""
        found: list[int] = []
        for _, entries in self.waiting.by_kind():
            for entry in entries:
                found += _keep(entry.unit, wanted)
                if not entry.unit.tests:
                    self.waiting.remove(entry)
        for worker in self._workers.values():
            if worker.unit is not None:
                found += _keep(worker.unit, wanted)
        self.size -= len(found)
        return found

    # --- what a worker gets ---

    def next_unit(self, worker: KnownWorker) -> Unit | None:
        """A unit whose first test the worker may run next."""
        unit = worker.unit
        if unit is not None and unit.tests:
            # Workers that begin nothing wait for what comes of retries.
            again = self._first_again(worker) if self._some_hold and not unit.strict else None
            if again is not None:
                return self.waiting.take(again, worker.lacks)
            if self._may_go_on(worker, unit):
                return unit
            if unit.tests[0] in worker.lacks:
                self.give_up(worker)  # to those who have collected it
            elif unit.strict and unit.begun:
                return None
        entry = self._first(worker)
        if entry is None:
            return self._split(worker)
        unit = self.waiting.take(entry, worker.lacks)
        if not unit.loose:
            self.give_up(worker)
            worker.unit = unit
        return unit

    def _first(self, worker: KnownWorker) -> WaitingEntry | None:
        return self.waiting.first(lambda kind: self._takes(worker, kind), worker.lacks)

    def _first_again(self, worker: KnownWorker) -> WaitingEntry | None:
        entry = self._first(worker)
        return entry if entry is not None and entry.rank[0] == _AGAIN else None

    def _split(self, worker: KnownWorker) -> Unit | None:
        """Half of what another worker was not sent of its unit."""
        best: tuple[Unit, list[int]] | None = None
        for owner in self._workers.values():
            unit = owner.unit
            if unit is None or owner is worker or unit.strict:
                continue
            if not self.may_run(worker, unit.kind):
                continue
            half = itertools.islice(reversed(unit.tests), (len(unit.tests) + 1) // 2)
            share = [test for test in half if test not in worker.lacks]
            if not share or (best and len(share) <= len(best[1])):
                continue
            if not self._may_go_on(owner, unit) or self._is_worth_splitting(owner, unit):
                best = unit, share[::-1]
        if best is None:
            return None
        unit, share = best
        taken = set(share)
        unit.tests = deque(test for test in unit.tests if test not in taken)
        self.give_up(worker)
        worker.unit = Unit(unit.rank, unit.kind, deque(share))
        return worker.unit

    def _is_worth_splitting(self, owner: KnownWorker, unit: Unit) -> bool:
        """Whether the rest of a unit takes so long that another worker should share it."""
        queued = (test for test, each in owner.queue.items() if each is unit)
        seconds = 0.0
        for test in itertools.chain(queued, unit.tests):
            seconds += self._estimates.on(owner, test)
            if seconds >= SPLIT:
                return True
        return False

    def recallable(self, worker: KnownWorker) -> tuple[KnownWorker, list[int]] | None:
        """What the worker should get of the queue of another one: of the fullest."""
        best: tuple[float, KnownWorker, list[int]] | None = None
        for victim in self._workers.values():
            if victim is worker or victim.waits:
                continue
            tests = self._givable(victim, worker)
            seconds = sum(self._estimates.on(victim, test) for test in tests)
            if tests and (best is None or seconds > best[0]):
                best = seconds, victim, tests
        return best and best[1:]

    def _givable(self, victim: KnownWorker, worker: KnownWorker) -> list[int]:
        """The last half of the victim's queue, or a group of which it has begun nothing."""
        queue = list(victim.queue.items())
        next_unit = None
        if queue and (victim.running is None or victim.through):
            _, next_unit = queue.pop(0)  # it is about to begin that one
        tests = [
            test
            for test, unit in queue
            if test not in victim.refused
            and not (unit.strict and (unit.begun or unit is next_unit))
            and test not in worker.lacks
            and self.may_run(worker, unit.kind, locked=unit.kind.serial)
            and (unit.loose or unit.strict or self._is_worth_splitting(victim, unit))
        ]
        if not tests:
            return []
        last = victim.queue[tests[-1]]
        if last.strict:
            return [test for test in tests if victim.queue[test] is last]
        tests = [test for test in tests if not victim.queue[test].strict]
        return tests[len(tests) // 2 :]

    # --- tests that workers are kept free for ---

    def reserve(self) -> None:
        """Keep workers free for the oldest test that needs that, then for the next one."""
        for entry in sorted(self.waiting.heads(self._needs_reservation)):
            kind, test = entry.unit.kind, entry.unit.tests[0]
            if kind.serial in self._locked:
                continue
            whole = not self._reservations.needed(kind)
            if whole and not self._is_due(entry):
                continue
            gang = (self._room if whole else self._reservations).choose(kind, test)
            if gang is None:
                if whole or (self._some_hold and not self.is_runnable(kind, test, held=False)):
                    continue  # who holds may wait for the outcome of a later one
                return  # what becomes free is for this test, not for later ones
            if kind.serial:
                self._locked.add(kind.serial)
            if whole and not entry.unit.loose:
                self.waiting.remove(entry)
                unit = entry.unit
            else:
                unit = self.waiting.take_one(entry, test)
                self.size -= not whole
            self._reservations.add(test, unit, gang, whole)

    def _needs_reservation(self, kind: Kind) -> bool:
        return self._reservations.needed(kind) or self._room.is_large_anywhere(kind)

    def _is_due(self, entry: WaitingEntry) -> bool:
        """Whether nothing that fits beside others goes before it."""
        first = self.waiting.first(lambda kind: not self._needs_reservation(kind), ())
        return first is None or entry < first

    def start_whole(self) -> Iterator[tuple[KnownWorker, int]]:
        """Enqueue the first tests of large units that there is room for now."""
        for each in self._reservations.pop_whole():
            worker, unit = self._workers[each.gang.leader], each.unit
            self.unlock(unit)
            if not unit.loose:
                self.give_up(worker)
                worker.unit = unit
            yield worker, self.enqueue(worker, unit)


def _keep(unit: Unit, wanted: Callable[[int], bool]) -> list[int]:
    """Keep what is wanted of a unit; the others."""
    others = [test for test in unit.tests if not wanted(test)]
    if others:
        unit.tests = deque(test for test in unit.tests if wanted(test))
    return others
