"""Which worker runs which test next: a state machine without a process, and with any clock."""

from __future__ import annotations

import itertools
from collections import deque
from typing import Callable, Collection, Iterable, Iterator, Sequence

from ...gpu.devices import Nearness
from ...own import own_builtins, time
from .decisions import Decision, Lend, Recall, Send, Settle, Unrunnable
from .known_workers import Worker
from .reservations import Reservation, Reservations
from .slots import Room, is_large
from .units import Kind, Unit
from .waiting import Entry, Waiting

own_builtins(globals())

AHEAD = 0.4
"""Seconds of tests that a worker has before it: some hundred round trips."""

SPLIT = 0.5
"""Seconds of tests that share something from which on another setup of that is worth the while."""

MOST = 1024
"""Tests that a worker has before it."""


_AGAIN = float("-inf")
"""Rank of tests that are to be run again."""


class Schedule:
    """Distributes tests, which are known by their numbers.

    :param seconds: by test, how long it is expected to take, None where nobody knows.
    :param overhead: seconds that a test takes beyond that.
    :param unowned: GPUs that belong to no worker. GPUs have names as in "host/id"; a test can have
        those of one host only.
    :param nearness: of GPUs to each other.
    :param in_order: whether tests are to be begun in the order of their units.
    :param clock: seconds from any moment on.
    """

    def __init__(
        self,
        seconds: Sequence[float | None],
        overhead: float = 0.0,
        unowned: Sequence[str] = (),
        nearness: Nearness | None = None,
        in_order: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._overhead = overhead
        self._waiting = Waiting(self._known)
        self._workers: dict[str, Worker] = {}
        self._order = itertools.count()
        self._coming = 0
        self._locked: set[str] = set()
        self._open: set[int] = set()
        self._undistributed = 0
        self._in_order = in_order
        self._clock = clock
        self.reservations = Reservations(
            self._workers, unowned, nearness or Nearness(), self._known
        )
        """Who is kept free."""
        self._room = Room(self._workers, self.reservations)
        self._may_be_hopeless = True
        self._held = False
        self._news = 0
        """Changes when there may be something for a gap that there was not before."""

    # --- what happens ---

    def add_units(self, units: Iterable[Unit]) -> None:
        """There is something to run."""
        for unit in units:
            self._open.update(unit.tests)
            self._undistributed += len(unit.tests)
            self._release(unit)

    def expect(self, number: int) -> None:
        """So many workers are on their way, and will be added or not."""
        self._coming = number

    def add_worker(
        self,
        name: str,
        gpus: Sequence[str] = (),
        lacks: frozenset[int] = frozenset(),
        cpu: bool = False,
        memory: Sequence[int] = (),
        slots: int = 1,
    ) -> None:
        """A worker waits for tests.

        :param gpus: those that it owns.
        :param lacks: tests that it did not collect.
        :param cpu: whether it has none where others have.
        :param memory: bytes that its GPUs have, 0 where that is unknown.
        :param slots: how many workers may share them, and get what fits beside each other.
        """
        sizes = tuple(memory) or (0,) * len(gpus)
        order = next(self._order)
        worker = Worker(name, order, tuple(gpus), lacks, cpu, sizes, slots)
        self._workers[name] = worker
        self.reservations.join(worker)
        self._changed()

    def retire(self, name: str) -> None:
        """The worker gets no more tests."""
        self._workers[name].retired = True
        self._give_up(self._workers[name])
        self._cancel(name)
        self._note_held()

    def readmit(self, name: str) -> None:
        """It gets tests again."""
        self._workers[name].retired = False
        self._note_held()

    def hold(self, name: str) -> None:
        """The worker begins nothing before :meth:`go_on`, so what it has not begun is for others.

        But for the rest of a group that it has to run: that waits for it.
        """
        worker = self._workers[name]
        if worker.held:
            return
        worker.held = worker.through = True
        worker.waits = not worker.queue
        if worker.unit is not None and not (worker.unit.strict and worker.unit.begun):
            self._give_up(worker)
        self._cancel(name)
        self._note_held()

    def go_on(self, name: str) -> None:
        """It begins tests again."""
        self._workers[name].held = False
        self._note_held()

    def pause(self, names: Collection[str]) -> None:
        """These, of all, are to begin nothing, since others hold with whom they share GPUs."""
        for worker in self._workers.values():
            if worker.paused == (worker.name in names):
                continue
            worker.paused = worker.name in names
            if worker.paused:
                if worker.unit is not None and not (worker.unit.strict and worker.unit.begun):
                    self._give_up(worker)
                self._cancel(worker.name)
        self._note_held()

    def suspect(self, names: Collection[str]) -> None:
        """These, of all, are not to run what others failed at, as long as somebody else can."""
        for worker in self._workers.values():
            worker.suspect = worker.name in names
        self._changed()

    def able(self, kind: Kind) -> bool:
        """Whether somebody is there who could run such a test, now or later."""
        return self._is_runnable(kind, None)

    def able_now(self, kind: Kind, test: int) -> bool:
        """The same without those who begin nothing now."""
        return self._is_runnable(kind, test, held=False)

    def begins(self, name: str, test: int) -> None:
        """The worker begins a test."""
        worker = self._workers[name]
        unit = worker.queue.pop(test, None)
        worker.running, worker.running_unit = test, unit
        worker.since = self._clock()
        worker.waits = worker.through = worker.settled = False
        worker.refused.clear()
        if unit is not None:
            unit.begun = True

    def completed(self, name: str, test: int, seconds: float) -> None:
        """The worker is through with a test, which has its verdict, or will have it elsewhere."""
        worker = self._workers[name]
        if worker.running == test:
            self._unlock(worker.running_unit)
            worker.running = worker.running_unit = None
        else:  # it never said that it began
            self._unlock(worker.queue.pop(test, None))
        worker.refused.clear()
        self.reservations.end(test)
        worker.took(seconds + self._overhead)
        self._open.discard(test)
        if worker.slots > 1:
            self._news += 1  # what needs memory may fit now

    def waits(self, name: str) -> None:
        """The worker has nothing to run; it may have crossed with what it is sent."""
        worker = self._workers[name]
        worker.refused.clear()
        worker.through = True
        worker.waits = not worker.queue

    def returned(self, name: str, tests: Sequence[int]) -> None:
        """The worker gives back what it was asked for, as far as it could."""
        worker = self._workers[name]
        worker.refused |= worker.recalled - set(tests)
        worker.recalled = frozenset()
        self._take_back(worker, tests)
        if (worker.running is None or worker.through) and not worker.queue:
            worker.waits = True

    def running(self, name: str) -> int | None:
        """The test that the worker began last, if it is not through with it."""
        return self._workers[name].running

    def remove_worker(self, name: str, at: int | None = None) -> int | None:
        """The worker is gone.

        :param at: the test at which it was, if that is known better than by what it said: it was
            sent that one, and is through with those before it, which are run again.
        :return: the test that it was running, which has its verdict now.
        """
        worker = self._workers.pop(name)
        self._note_held()
        if at is not None and at in worker.queue:
            worker.go_on_to(at)
        self._take_back(worker, list(worker.queue))
        self._give_up(worker)
        self._cancel(name)
        self.reservations.lose_leader(name)
        self._unlock(worker.running_unit)
        if worker.running is not None:
            self._open.discard(worker.running)
        return worker.running

    def requeue(self, test: int, kind: Kind) -> None:
        """A test is to be run again, before anything else."""
        self._open.add(test)
        self._undistributed += 1
        self._release(Unit((_AGAIN, test), kind, deque([test]), loose=True))

    @property
    def unfinished(self) -> int:
        """How many tests have no verdict."""
        return len(self._open)

    # --- decisions ---

    def decide(self) -> list[Decision]:
        """What is to be done now."""
        decisions: list[Decision] = [*self._lost(), *self._distribute()]
        while lost := self._lost():  # what workers just gave up
            decisions += [*lost, *self._distribute()]
        return decisions

    def _lost(self) -> list[Unrunnable]:
        """What nobody can run, if that may have changed."""
        if self._coming or not self._may_be_hopeless:
            return []
        self._may_be_hopeless = False
        return list(self._hopeless())

    def _distribute(self) -> list[Decision]:
        # Who waits goes first.
        order = sorted(self._workers.values(), key=lambda worker: (not worker.waits, worker.order))
        self._room.changed()
        self._reserve()
        decisions: list[Decision] = [*self._give_whole()]
        reserved = self.reservations.reserved()
        for worker in order:
            reservation = reserved.get(worker.name)
            if worker.retired or worker.stopped or worker.suspect or reservation is not None:
                decisions += self._clear(worker, reservation)
        # By now it is known what others are not going to run.
        for worker in order:
            reservation = reserved.get(worker.name)
            if worker.held:
                decisions += self._settle(worker)
            elif reservation is not None:
                decisions += self._fill_gap(worker, reservation)
            elif not (worker.retired or worker.paused):
                decisions += self._fill(worker)
        for worker in order:
            if worker.waits:
                decisions += self._help(worker, worker.name in reserved)
        return [*decisions, *self._lend(), *self._give_whole()]

    def _clear(self, worker: Worker, reservation: Reservation | None) -> Iterator[Recall]:
        """What a worker has not begun that is retired, holds, or is to be free.

        Of a worker that is suspect, what others failed at.
        """
        whole = reservation is not None and reservation.whole and not worker.stopped
        if whole and reservation is not None and reservation.gang.leader == worker.name:
            return  # that much may go before
        kept = worker.refused | self.reservations.begun()
        if worker.held:  # it is about to begin none of them
            kept = set()
        elif reservation is not None:
            kept |= reservation.fillers
        everything = worker.retired or worker.stopped or reservation is not None
        tests = [
            test
            for test, unit in worker.queue.items()
            if test not in kept and (everything or self._is_for_others(worker, unit.kind))
            # Else large ones would call each other back for ever.
            if not (whole and unit.kind.memory and is_large(worker, unit.kind))
        ]
        if tests and not worker.recalled:
            worker.recalled = frozenset(tests)
            yield Recall(worker.name, tuple(tests))

    def _fill(self, worker: Worker) -> Iterator[Send]:
        ahead = self._ahead(worker)
        if ahead >= AHEAD / 2 or len(worker.queue) >= MOST:
            return
        tests: list[int] = []
        # So that nobody gets nothing where there is little.
        most = min(MOST - len(worker.queue), -(-self._undistributed // len(self._workers)))
        while ahead < AHEAD and len(tests) < most:
            unit = self._next_unit(worker)
            if unit is None:
                break
            test = unit.tests.popleft()
            self._enqueue(worker, test, unit)
            tests.append(test)
            ahead += self._expected(worker, test)
        if tests:
            yield self._send(worker, tests)

    def _enqueue(self, worker: Worker, test: int, unit: Unit) -> None:
        if unit.kind.serial:
            self._locked.add(unit.kind.serial)
        worker.queue[test] = unit
        self._undistributed -= 1
        self._room.changed()

    def _send(self, worker: Worker, tests: Sequence[int]) -> Send:
        if worker.waits:
            worker.since = self._clock()
        worker.waits = worker.settled = False
        return Send(worker.name, tuple(tests))

    def _ahead(self, worker: Worker) -> float:
        """Seconds that the worker is busy for."""
        if worker.waits:
            return 0.0
        running = 0.0 if worker.running is None else self._expected(worker, worker.running)
        # One by one only where there are few.
        if len(worker.queue) * min(worker.mean, AHEAD) >= AHEAD:
            return AHEAD
        return running + sum(self._expected(worker, test) for test in worker.queue)

    def _expected(self, worker: Worker, test: int) -> float:
        seconds = self._seconds[test]
        return worker.mean if seconds is None else seconds + self._overhead

    def _known(self, test: int) -> float | None:
        seconds = self._seconds[test]
        return None if seconds is None else seconds + self._overhead

    def _help(self, worker: Worker, reserved: bool) -> Iterator[Decision]:
        """Something for a worker that nothing is left for."""
        idle = worker.retired or worker.stopped or reserved
        if not idle and any(each.recalled for each in self._workers.values()):
            return  # the answer may be what it gets
        found = None if idle else self._recallable(worker)
        if found is not None:
            victim, tests = found
            victim.recalled = frozenset(tests)
            yield Recall(victim.name, tuple(tests), whole=victim.queue[tests[0]].strict)
        else:
            yield from self._settle(worker)

    def _settle(self, worker: Worker) -> Iterator[Settle]:
        if not worker.settled:
            worker.settled = True
            yield Settle(worker.name)

    def _recallable(self, worker: Worker) -> tuple[Worker, list[int]] | None:
        """What the worker with the most before it could give away."""
        best: tuple[float, Worker, list[int]] | None = None
        for victim in self._workers.values():
            if victim is worker or victim.waits:
                continue
            tests = self._givable(victim, worker)
            seconds = sum(self._expected(victim, test) for test in tests)
            if tests and (best is None or seconds > best[0]):
                best = seconds, victim, tests
        return best and best[1:]

    def _givable(self, victim: Worker, worker: Worker) -> list[int]:
        """Half of what the victim was sent last, or a group of which it has begun nothing."""
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
            and self._can(worker, unit.kind, locked=unit.kind.serial)
            and (unit.loose or unit.strict or self._is_worth_splitting(victim, unit))
        ]
        if not tests:
            return []
        last = victim.queue[tests[-1]]
        if last.strict:
            return [test for test in tests if victim.queue[test] is last]
        tests = [test for test in tests if not victim.queue[test].strict]
        return tests[len(tests) // 2 :]

    def _hopeless(self) -> Iterator[Unrunnable]:
        lacked = {test for worker in self._workers.values() for test in worker.lacks}
        for kind, entries in self._waiting.by_kind():
            anybody = self.able(kind)
            if anybody and not lacked:
                continue
            for entry in entries:
                tests = entry.unit.tests
                for test in list(tests):
                    if not (anybody and test not in lacked) and not self._is_runnable(kind, test):
                        tests.remove(test)
                        self._undistributed -= 1
                        self._open.discard(test)
                        yield Unrunnable(test)
                if not tests:
                    self._waiting.remove(entry)

    def _is_runnable(self, kind: Kind, test: int | None, held: bool = True) -> bool:
        if self.reservations.needed(kind):
            return self.reservations.possible(kind, test, held)
        return any(
            worker.could(kind) and (held or not worker.stopped) and test not in worker.lacks
            for worker in self._workers.values()
        )

    # --- tests that need GPUs of several workers, a GPU alone, or much memory ---

    def _reserve(self) -> None:
        """Keep workers free for the oldest test that needs that, then for the next one."""
        for entry in sorted(self._waiting.heads(self._is_kept_for)):
            kind, test = entry.unit.kind, entry.unit.tests[0]
            if kind.serial in self._locked:
                continue
            whole = not self.reservations.needed(kind)
            if whole and not self._is_due(entry):
                continue
            choose = self._room.choose if whole else self.reservations.choose
            gang = choose(kind, test)
            if gang is None and (whole or (self._held and not self.able_now(kind, test))):
                continue  # who holds may wait for what becomes of one behind it
            if gang is None:
                return  # what becomes free is for this one, not for one behind it
            if kind.serial:
                self._locked.add(kind.serial)
            if whole and not entry.unit.loose:
                self._waiting.remove(entry)
                self.reservations.add(test, entry.unit, gang, whole)
                continue
            self._undistributed -= not whole
            self.reservations.add(test, self._waiting.take_one(entry, test), gang, whole)

    def _is_kept_for(self, kind: Kind) -> bool:
        return self.reservations.needed(kind) or self._is_large(kind)

    def _is_large(self, kind: Kind) -> bool:
        return bool(kind.memory) and any(is_large(each, kind) for each in self._workers.values())

    def _is_due(self, entry: Entry) -> bool:
        """Whether nothing that fits beside others would go before it."""
        first = self._waiting.first(lambda kind: not self._is_kept_for(kind), ())
        return first is None or entry < first

    def _give_whole(self) -> Iterator[Send]:
        """Units with large tests, for which there is room now."""
        for each in self.reservations.take_whole():
            worker, unit = self._workers[each.gang.leader], each.unit
            self._unlock(unit)
            if not unit.loose:
                self._give_up(worker)
                worker.unit = unit
            self._enqueue(worker, test := unit.tests.popleft(), unit)
            yield self._send(worker, [test])

    def _fill_gap(self, worker: Worker, reservation: Reservation) -> Iterator[Send]:
        """One test for a worker that is kept free, if it ends before all others are free."""
        deadline = None
        if worker.waits and not reservation.begun:
            deadline = self.reservations.deadline(reservation)
        if deadline is None:
            return
        seconds = deadline - self._clock()
        test = self._take_filler(worker, seconds) if seconds > 0 else None
        if test is not None:
            reservation.fillers.add(test)
            yield self._send(worker, [test])

    def _take_filler(self, worker: Worker, seconds: float) -> int | None:
        """A test for the worker that is known to take no longer than that."""
        own = worker.unit
        if own is not None and self._can(worker, own.kind):
            test = self._waiting.fitting(itertools.islice(own.tests, 1), worker.lacks, seconds)
            if test is not None:
                self._enqueue(worker, own.tests.popleft(), own)
                return test
        if worker.fruitless >= (self._news, seconds):
            return None
        found = self._waiting.quick(
            lambda kind: self._takes(worker, kind), worker.lacks, seconds, self._in_order
        )
        if found is None:
            worker.fruitless = self._news, seconds
            return None
        unit = self._waiting.take_one(*found)
        self._enqueue(worker, test := unit.tests.popleft(), unit)
        return test

    def _cancel(self, name: str) -> None:
        """Let go of what the worker is kept free for, but has not been given to its leader."""
        for each in self.reservations.cancel(name):
            self._unlock(each.unit)
            self._undistributed += not each.whole
            self._release(each.unit)

    def _lend(self) -> Iterator[Decision]:
        for each in self.reservations.ready():
            each.begun = True
            leader = self._workers[each.gang.leader]
            leader.queue[each.test] = each.unit
            each.unit.tests.clear()
            self._room.changed()
            leader.waits = leader.settled = False
            yield Lend(leader.name, each.test, each.gang.gpus)

    # --- units ---

    def _next_unit(self, worker: Worker) -> Unit | None:
        """A unit whose first test the worker may run next."""
        unit = worker.unit
        if unit is not None and unit.tests:
            # Somebody who begins nothing waits for what comes of them.
            again = self._first_again(worker) if self._held and not unit.strict else None
            if again is not None:
                return self._waiting.take(again, worker.lacks)
            if self._may(worker, unit):
                return unit
            if unit.tests[0] in worker.lacks:
                self._give_up(worker)  # to those who have collected it
            elif unit.strict and unit.begun:
                return None
        entry = self._waiting.first(lambda kind: self._takes(worker, kind), worker.lacks)
        if entry is None:
            return self._split(worker)
        unit = self._waiting.take(entry, worker.lacks)
        if not unit.loose:
            self._give_up(worker)
            worker.unit = unit
        return unit

    def _first_again(self, worker: Worker) -> Entry | None:
        """The first of the tests that are to be run again."""
        entry = self._waiting.first(lambda kind: self._takes(worker, kind), worker.lacks)
        return entry if entry is not None and entry.rank[0] == _AGAIN else None

    def _split(self, worker: Worker) -> Unit | None:
        """Half of what another worker has not been sent of its unit."""
        best: tuple[Unit, list[int]] | None = None
        for owner in self._workers.values():
            unit = owner.unit
            if unit is None or owner is worker or unit.strict or not self._can(worker, unit.kind):
                continue
            half = itertools.islice(reversed(unit.tests), (len(unit.tests) + 1) // 2)
            share = [test for test in half if test not in worker.lacks]
            if not share or (best and len(share) <= len(best[1])):
                continue
            if not self._may(owner, unit) or self._is_worth_splitting(owner, unit):
                best = unit, share[::-1]
        if best is None:
            return None
        unit, share = best
        taken = set(share)
        unit.tests = deque(test for test in unit.tests if test not in taken)
        self._give_up(worker)
        worker.unit = Unit(unit.rank, unit.kind, deque(share))
        return worker.unit

    def _is_worth_splitting(self, owner: Worker, unit: Unit) -> bool:
        """Whether what is left of a unit takes so long that another worker should share it."""
        queued = (test for test, each in owner.queue.items() if each is unit)
        seconds = 0.0
        for test in itertools.chain(queued, unit.tests):
            seconds += self._expected(owner, test)
            if seconds >= SPLIT:
                return True
        return False

    def _release(self, unit: Unit) -> None:
        if unit.tests:
            self._waiting.add(unit)
            self._changed()

    def _give_up(self, worker: Worker) -> None:
        """What is left of the worker's unit is anybody's."""
        unit, worker.unit = worker.unit, None
        if unit is not None:
            unit.begun = False
            self._release(unit)

    def _take_back(self, worker: Worker, tests: Sequence[int]) -> None:
        """What the worker has in its queue goes back to where it came from."""
        self.reservations.give_back(tests)
        units: dict[int, tuple[Unit, list[int]]] = {}
        for test in tests:
            unit = worker.queue.pop(test)
            self._unlock(unit)
            self._undistributed += 1
            units.setdefault(id(unit), (unit, []))[1].append(test)
        for unit, back in units.values():
            if unit is worker.unit:
                unit.tests.extendleft(reversed(back))
            else:
                self._release(Unit(unit.rank, unit.kind, deque(back), unit.loose, unit.strict))
            if unit is worker.unit and unit.strict and not unit.begun:
                self._give_up(worker)

    def _unlock(self, unit: Unit | None) -> None:
        if unit is not None and unit.kind.serial in self._locked:
            self._locked.remove(unit.kind.serial)
            self._news += 1  # nothing is hopeless for that

    def _note_held(self) -> None:
        self._held = any(worker.stopped and not worker.retired for worker in self._workers.values())
        self._changed()

    def _changed(self) -> None:
        self._may_be_hopeless = True
        self._news += 1

    # --- who can run what ---

    def _may(self, worker: Worker, unit: Unit) -> bool:
        return self._can(worker, unit.kind) and unit.tests[0] not in worker.lacks

    def _takes(self, worker: Worker, kind: Kind) -> bool:
        """Whether the worker may run such a test now, and nobody is to be kept free for it."""
        return self._can(worker, kind) and not self.reservations.needed(kind)

    def _can(self, worker: Worker, kind: Kind, locked: str = "") -> bool:
        """Whether the worker may run such a test now; `locked` does not count."""
        held = kind.serial in self._locked and kind.serial != locked
        if held or not worker.could(kind) or self._is_for_others(worker, kind):
            return False
        return self._room.fits(worker, kind)

    def _is_for_others(self, worker: Worker, kind: Kind) -> bool:
        """Whether it is suspect, others failed at such a test, and somebody is there who is not."""
        return bool(worker.suspect and kind.avoid) and any(
            other.could(kind) and not (other.stopped or other.suspect or other.lacks)
            for other in self._workers.values()
        )
