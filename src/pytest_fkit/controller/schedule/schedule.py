"""Which worker runs which test next: a state machine without a process or a clock."""

from __future__ import annotations

import itertools
from typing import Callable, Collection, Iterable, Iterator, Sequence

from ...gpu.devices import Nearness
from ...own import own_builtins
from .backlog import Backlog
from .gangs import Reservation, Reservations
from .known_workers import (
    Decision,
    Estimates,
    KnownWorker,
    Lend,
    Recall,
    Send,
    SettleWorker,
    Unrunnable,
)
from .slots import Room, is_large
from .units import Kind, Unit

own_builtins(globals())

MOST_IN_QUEUE = 1024
"""Tests in a worker's queue."""


class Schedule:
    """Distributes tests, which are known by their numbers.

    :param seconds: the expected duration of each test, None where unknown.
    :param overhead: seconds that a test takes beyond that.
    :param unowned: GPUs that belong to no worker. GPUs have names as in "machine/id"; a test has
        those of one machine only.
    """

    def __init__(
        self,
        seconds: Sequence[float | None],
        overhead: float = 0.0,
        unowned: Sequence[str] = (),
        nearness: Nearness | None = None,
    ) -> None:
        self._estimates = Estimates(seconds, overhead)
        self._workers: dict[str, KnownWorker] = {}
        self._order = itertools.count()
        self._coming = 0
        self._open: set[int] = set()
        self.reservations = Reservations(self._workers, unowned, nearness or Nearness())
        """The workers that are kept free."""
        self._wanted: Callable[[int], bool] | None = None
        self._room = Room(self._workers, self.reservations)
        self._backlog = Backlog(self._workers, self.reservations, self._room, self._estimates)

    # --- what happens ---

    def add_units(self, units: Iterable[Unit]) -> None:
        for unit in units:
            self._open.update(unit.tests)
            self._backlog.add(unit)

    def expect(self, number: int) -> None:
        """Expect so many workers, which are starting and may be added."""
        self._coming = number

    def add_worker(
        self,
        name: str,
        gpus: Sequence[str] = (),
        lacks: frozenset[int] = frozenset(),
        cpu: bool = False,
        memory: Sequence[int] = (),
        slots: int = 1,
        lag: float = 0.0,
        machine: str = "",
    ) -> None:
        """A worker waits for tests; for the parameters see :class:`.known_workers.KnownWorker`."""
        sizes = tuple(memory) or (0,) * len(gpus)
        order = next(self._order)
        worker = KnownWorker(name, order, tuple(gpus), lacks, cpu, sizes, slots, lag, machine)
        self._workers[name] = worker
        self.reservations.join(worker)
        self._backlog.changed()

    def retire(self, name: str) -> None:
        self._workers[name].retired = True
        self._backlog.give_up(self._workers[name])
        self._backlog.cancel(name)
        self._backlog.changed()

    def readmit(self, name: str) -> None:
        self._workers[name].retired = False
        self._backlog.changed()

    def hold(self, name: str) -> None:
        """The worker begins nothing before :meth:`go_on`; others get what it has not begun.

        The rest of a group that it has begun, and has to run, waits for it.
        """
        worker = self._workers[name]
        if worker.held:
            return
        worker.held = worker.through = True
        worker.waits = not worker.queue
        self._backlog.stop(worker)
        self._backlog.cancel(name)
        self._backlog.changed()

    def go_on(self, name: str) -> None:
        self._workers[name].held = False
        self._backlog.changed()

    def pause(self, names: Collection[str]) -> None:
        """Give exactly these workers nothing to begin."""
        for worker in self._workers.values():
            if worker.paused == (worker.name in names):
                continue
            worker.paused = worker.name in names
            if worker.paused:
                self._backlog.stop(worker)
                self._backlog.cancel(worker.name)
        self._backlog.changed()

    def suspect(self, names: Collection[str]) -> None:
        """Mark exactly these workers: others are preferred for what failed elsewhere."""
        for worker in self._workers.values():
            worker.suspect = worker.name in names
        self._backlog.changed()

    def able(self, kind: Kind) -> bool:
        """Whether a worker is there that could run such a test, now or later."""
        return self._backlog.is_runnable(kind, None)

    def able_now(self, kind: Kind, test: int) -> bool:
        """The same without those that begin nothing now."""
        return self._backlog.is_runnable(kind, test, held=False)

    def begins(self, name: str, test: int) -> None:
        worker = self._workers[name]
        unit = worker.queue.pop(test, None)
        worker.running, worker.running_unit = test, unit
        worker.waits = worker.through = worker.settled = False
        worker.refused.clear()
        if unit is not None:
            unit.begun = True

    def completed(self, name: str, test: int, seconds: float) -> None:
        """The worker is through with a test, which has its verdict, or will have it elsewhere."""
        worker = self._workers[name]
        if worker.running == test:
            self._backlog.unlock(worker.running_unit)
            worker.running = worker.running_unit = None
        else:  # it never said that it began
            self._backlog.unlock(worker.queue.pop(test, None))
        worker.refused.clear()
        self.reservations.end(test)
        worker.took(seconds + self._estimates.overhead)
        self._open.discard(test)

    def waits(self, name: str) -> None:
        """The worker has nothing to run, unless that crossed with what it was sent."""
        worker = self._workers[name]
        worker.refused.clear()
        worker.through = True
        worker.waits = not worker.queue

    def returned(self, name: str, tests: Sequence[int]) -> None:
        """The worker gives back what it was asked for, as far as it could."""
        worker = self._workers[name]
        worker.refused |= worker.recalled - set(tests)
        worker.recalled = frozenset()
        self._backlog.take_back(worker, tests)
        if (worker.running is None or worker.through) and not worker.queue:
            worker.waits = True

    def running(self, name: str) -> int | None:
        """The test that the worker began last, if it is not through with it."""
        return self._workers[name].running

    def remove_worker(self, name: str, at: int | None = None) -> int | None:
        """The worker is gone.

        :param at: the test that it was running, if that is known better than by what it said: it
            was sent that one, and is through with those before it, which are run again.
        :return: the test that it was running, which has its verdict now.
        """
        worker = self._workers.pop(name)
        self._backlog.changed()
        if at is not None and at in worker.queue:
            worker.go_on_to(at)
        self._backlog.take_back(worker, list(worker.queue))
        self._backlog.give_up(worker)
        self._backlog.cancel(name)
        self.reservations.lose_leader(name)
        self._backlog.unlock(worker.running_unit)
        if worker.running is not None:
            self._open.discard(worker.running)
        return worker.running

    def reopen(self, test: int) -> None:
        """The test has no verdict yet, and is requeued later."""
        self._open.add(test)

    def requeue(self, test: int, kind: Kind) -> None:
        """Run a test again, before anything else."""
        self._open.add(test)
        self._backlog.add_again(test, kind)

    def want_only(self, wanted: Callable[[int], bool]) -> None:
        """Begin no other tests from now on; the rest is finished without a verdict."""
        self._wanted = wanted

    @property
    def unfinished(self) -> int:
        """How many tests have no verdict."""
        return len(self._open)

    # --- decisions ---

    def decide(self) -> list[Decision]:
        decisions: list[Decision] = []
        if self._wanted is not None:
            decisions += self._drop(self._wanted)
        decisions += [*self._unrunnable(), *self._distribute()]
        while lost := self._unrunnable():  # what workers just gave up
            decisions += [*lost, *self._distribute()]
        return decisions

    def _drop(self, wanted: Callable[[int], bool]) -> Iterator[Recall]:
        self._open.difference_update(self._backlog.discard(wanted))
        for worker in self._workers.values():
            tests = [
                test for test in worker.queue if not wanted(test) and test not in worker.refused
            ]
            if tests and not worker.recalled:
                worker.recalled = frozenset(tests)
                yield Recall(worker.name, tuple(tests))

    def _unrunnable(self) -> list[Unrunnable]:
        found = [] if self._coming else self._backlog.pop_unrunnable()
        self._open.difference_update(each.test for each in found)
        return found

    def _distribute(self) -> list[Decision]:
        # Who waits goes first.
        order = sorted(self._workers.values(), key=lambda worker: (not worker.waits, worker.order))
        self._room.changed()
        self._backlog.reserve()
        decisions: list[Decision] = [*self._start_whole()]
        reserved = self.reservations.reserved()
        for worker in order:
            reservation = reserved.get(worker.name)
            if worker.retired or worker.stopped or worker.suspect or reservation is not None:
                decisions += self._clear(worker, reservation)
        # Only now is it known what others are not going to run.
        for worker in order:
            if worker.held:
                decisions += self._settle(worker)
            elif not (worker.name in reserved or worker.retired or worker.paused):
                decisions += self._fill(worker)
        for worker in order:
            if worker.waits:
                decisions += self._help(worker, worker.name in reserved)
        return [*decisions, *self._lend(), *self._start_whole()]

    def _clear(self, worker: KnownWorker, reservation: Reservation | None) -> Iterator[Recall]:
        """Recall the queue of a worker that is retired, holds, or is kept free.

        Of a suspect worker, recall what others failed at.
        """
        whole = reservation is not None and reservation.whole and not worker.stopped
        if whole and reservation is not None and reservation.gang.leader == worker.name:
            return  # that much may go before
        kept = worker.refused | self.reservations.begun()
        if worker.held:  # it is about to begin none of them
            kept = set()
        everything = worker.retired or worker.stopped or reservation is not None
        tests = [
            test
            for test, unit in worker.queue.items()
            if test not in kept
            and (everything or self._backlog.is_for_others(worker, unit.kind))
            # Else large ones would call each other back for ever.
            and not (whole and unit.kind.memory and is_large(worker, unit.kind))
        ]
        if tests and not worker.recalled:
            worker.recalled = frozenset(tests)
            yield Recall(worker.name, tuple(tests))

    def _fill(self, worker: KnownWorker) -> Iterator[Send]:
        ahead, enough = self._ahead(worker), worker.enough
        if ahead >= enough / 2 or len(worker.queue) >= MOST_IN_QUEUE:
            return
        tests: list[int] = []
        # Leave some for the others where there is little.
        share = -(-self._backlog.size // len(self._workers))
        most = min(MOST_IN_QUEUE - len(worker.queue), share)
        while ahead < enough and len(tests) < most:
            unit = self._backlog.next_unit(worker)
            if unit is None:
                break
            test = self._backlog.enqueue(worker, unit)
            tests.append(test)
            ahead += self._estimates.on(worker, test)
        if tests:
            yield self._send(worker, tests)

    def _send(self, worker: KnownWorker, tests: Sequence[int]) -> Send:
        worker.waits = worker.settled = False
        return Send(worker.name, tuple(tests))

    def _ahead(self, worker: KnownWorker) -> float:
        """Seconds that the worker is busy for."""
        if worker.waits:
            return 0.0
        running = 0.0 if worker.running is None else self._estimates.on(worker, worker.running)
        # Add up only short queues.
        enough = worker.enough
        if len(worker.queue) * min(worker.mean, enough) >= enough:
            return enough
        return running + sum(self._estimates.on(worker, test) for test in worker.queue)

    def _help(self, worker: KnownWorker, reserved: bool) -> Iterator[Decision]:
        """Find something for a worker that nothing is left for in the backlog."""
        idle = worker.retired or worker.stopped or reserved
        if not idle and any(each.recalled for each in self._workers.values()):
            return  # it may get what that answer brings
        found = None if idle else self._backlog.recallable(worker)
        if found is not None:
            victim, tests = found
            victim.recalled = frozenset(tests)
            yield Recall(victim.name, tuple(tests), whole=victim.queue[tests[0]].strict)
        else:
            yield from self._settle(worker)

    def _settle(self, worker: KnownWorker) -> Iterator[SettleWorker]:
        if not worker.settled:
            worker.settled = True
            yield SettleWorker(worker.name)

    def _start_whole(self) -> Iterator[Send]:
        for worker, test in self._backlog.start_whole():
            yield self._send(worker, [test])

    def _lend(self) -> Iterator[Lend]:
        """Give the test to the leaders of gangs that are free."""
        for each in self.reservations.ready():
            each.begun = True
            leader = self._workers[each.gang.leader]
            leader.queue[each.test] = each.unit
            each.unit.tests.clear()
            self._room.changed()
            leader.waits = leader.settled = False
            yield Lend(leader.name, each.test, each.gang.gpus)
