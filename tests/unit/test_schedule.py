"""The schedule under random needs, deaths and call-backs; and what it does with plain ones."""

from __future__ import annotations

from collections import deque
from typing import Any, Iterable

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pytest_fkit.controller.schedule import units
from pytest_fkit.controller.schedule.known_workers import (
    Decision,
    Lend,
    Recall,
    Send,
    SettleWorker,
    Unrunnable,
)
from pytest_fkit.controller.schedule.schedule import Schedule
from pytest_fkit.controller.schedule.units import ANY, Kind, soft_units, strict_units

TOTAL = 80
"""Memory of each GPU."""


class Worker:
    """What a worker does, as worker/tests/sources.py does it.

    :param kept: how many at the head of the queue can't be given back any more.
    """

    def __init__(self, name: str, lacks: frozenset[int], gpus: list[str]) -> None:
        self.name = name
        self.lacks = lacks
        self.gpus = gpus
        self.queue: deque[int] = deque()
        self.kept = 0
        self.running: int | None = None
        self.told = False
        self.settles = False
        self.holds = False

    @property
    def through(self) -> bool:
        """Whether only the last word on its test is missing."""
        return self.told


class Machine(RuleBasedStateMachine):
    """Workers obey at random moments; every test ends once, and the run comes to an end."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: dict[str, Worker] = {}
        self.inbox: dict[str, deque[Decision]] = {}
        self.verdicts: dict[int, str] = {}
        self.lent: dict[int, tuple[str, ...]] = {}
        self.retired: set[str] = set()
        self.names = 0
        self.avoided: dict[int, str] = {}
        self.alone: set[int] = set()
        self.suspects: set[str] = set()
        self.gpus: dict[str, str] = {}
        self.paused: set[str] = set()

    @initialize(
        groups=st.lists(st.sampled_from(["", "", "a", "b", "c"]), min_size=10, max_size=25),
        serials=st.lists(st.sampled_from(["", "", "", "s", "t"]), min_size=25, max_size=25),
        gpus=st.lists(
            st.sampled_from([None, None, None, None, 0, 1, 2, 3]), min_size=25, max_size=25
        ),
        seconds=st.lists(
            st.sampled_from([None, 0.001, 0.3, 0.3, 1.0, 5.0]), min_size=25, max_size=25
        ),
        strict=st.booleans(),
        lacks=st.lists(st.frozensets(st.integers(0, 24), max_size=2), min_size=1, max_size=4),
        slots=st.sampled_from([1, 1, 2, 3]),
        memory=st.lists(st.sampled_from([0, 0, 10, 30, 60, 200]), min_size=25, max_size=25),
    )
    def start(
        self,
        groups: list[str],
        serials: list[str],
        gpus: list[int | None],
        seconds: list[float | None],
        strict: bool,
        lacks: list[frozenset[int]],
        slots: int,
        memory: list[int],
    ) -> None:
        self.number = len(groups)
        self.strict = strict
        self.groups = groups
        self.seconds = seconds
        self.slots = slots
        self.kinds = [
            Kind(number, serial, memory=size, share=not size)
            if slots > 1 and number != 0
            else Kind(number, serial)
            for number, serial, size in zip(gpus, serials, memory)
        ]
        tests = [
            units.Test(number, group, seconds[number], self.kinds[number])
            for number, group in enumerate(groups)
        ]
        self.schedule = Schedule(seconds, unowned=["/spare"])
        if strict:
            self.schedule.add_units(
                strict_units(tests, lambda number: seconds[number] or 1.0, sort=True)
            )
        else:
            self.schedule.add_units(soft_units(tests, sort=True))
        for number, each in enumerate(lacks):
            self._add(each, f"/{number // slots}")
        self._act()

    def _add(self, lacks: frozenset[int], gpu: str) -> None:
        name = f"gw{self.names}"
        self.names += 1
        self.workers[name] = Worker(name, lacks, [gpu])
        self.gpus[name] = gpu
        self.inbox[name] = deque()
        self.schedule.add_worker(name, [gpu], lacks, memory=[TOTAL], slots=self.slots)
        if any(other in self.retired for other in self._sharing(name)):
            self.retired.add(name)
            self.schedule.retire(name)
        self._pause()

    def _sharing(self, name: str) -> list[str]:
        """Who has the same GPU, with the worker itself."""
        return [each for each in sorted(self.workers) if self.gpus[each] == self.gpus[name]]

    def _pause(self) -> None:
        """Who shares a GPU with those who hold begins nothing either."""
        found = {
            name
            for each in self.workers.values()
            if each.holds
            for name in self._sharing(each.name)
            if not self.workers[name].holds
        }
        if self.paused != found:
            self.paused = found
            self.schedule.pause(found)

    def _act(self) -> None:
        for decision in self.schedule.decide():
            if isinstance(decision, Unrunnable):
                self._verdict(decision.test, "not run")
            else:
                self.inbox[decision.worker].append(decision)

    def _held(self, worker: Worker) -> list[int]:
        """What a worker has, or was sent, without a verdict."""
        held = [] if worker.running is None else [worker.running]
        held += worker.queue
        for decision in self.inbox[worker.name]:
            held += decision.tests if isinstance(decision, Send) else ()
            held += [decision.test] if isinstance(decision, Lend) else ()
        return held

    def _verdict(self, test: int, verdict: str) -> None:
        assert test not in self.verdicts, test
        self.verdicts[test] = verdict

    def _hear(self, worker: Worker) -> None:
        """The worker takes in what it was told."""
        while self.inbox[worker.name]:
            decision = self.inbox[worker.name].popleft()
            if isinstance(decision, Lend):
                worker.queue.append(decision.test)
                worker.told = worker.settles = False
                self.lent[decision.test] = decision.gpus
            elif isinstance(decision, Send):
                assert not set(decision.tests) & worker.lacks
                worker.queue.extend(decision.tests)
                worker.told = worker.settles = False
            elif isinstance(decision, SettleWorker):
                worker.settles = True
            elif isinstance(decision, Recall):
                free = list(worker.queue)[worker.kept :]
                given = [test for test in free if test in decision.tests]
                if decision.whole and len(given) < len(decision.tests):
                    given = []
                worker.queue = deque(test for test in worker.queue if test not in given)
                self.schedule.returned(worker.name, given)
        self._act()

    def _step(self, worker: Worker) -> None:
        """The worker ends its test and begins the next one, if there is one."""
        may_begin = bool(worker.queue) and not worker.holds
        if worker.running is not None:
            test, worker.running = worker.running, None
            if may_begin or worker.settles:
                self._end(worker, test)
            elif worker.told or worker.holds:
                worker.running = test  # its last word is held until something follows
                return
            else:
                worker.running, worker.told = test, True
                self.schedule.waits(worker.name)
                self._act()
                return
        if may_begin:
            worker.running = worker.queue.popleft()
            worker.kept = 0
            self.schedule.begins(worker.name, worker.running)
        elif worker.settles:
            worker.settles = False
        elif not (worker.told or worker.holds):
            worker.told = True
            self.schedule.waits(worker.name)
        self._act()

    def _end(self, worker: Worker, test: int) -> None:
        self.schedule.completed(worker.name, test, 0.01)
        self._verdict(test, worker.name)

    def _go_on(self, worker: Worker) -> None:
        worker.holds = worker.told = False
        self.schedule.go_on(worker.name)
        self._pause()
        self._act()

    # --- rules ---

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def a_worker_listens(self, data: Any) -> None:
        self._hear(self.workers[data.draw(st.sampled_from(sorted(self.workers)))])

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), keeps=st.booleans())
    def a_worker_goes_on(self, data: Any, keeps: bool) -> None:
        worker = self.workers[data.draw(st.sampled_from(sorted(self.workers)))]
        self._step(worker)
        worker.kept = min(len(worker.queue), int(keeps and not worker.holds))

    @precondition(lambda self: len(self.workers) > 1)
    @rule(data=st.data())
    def all_but_one_go_on(self, data: Any) -> None:
        busy = data.draw(st.sampled_from(sorted(self.workers)))
        for _ in range(3):
            for worker in list(self.workers.values()):
                self._hear(worker)
                if worker.name != busy or worker.running is None:
                    self._step(worker)

    @precondition(lambda self: self.verdicts)
    @rule(data=st.data(), alone=st.booleans())
    def a_test_is_tried_again_elsewhere(self, data: Any, alone: bool) -> None:
        test = data.draw(st.sampled_from(sorted(self.verdicts)))
        by = self.verdicts.pop(test)
        self.lent.pop(test, None)
        self.avoided[test] = by
        self.alone = self.alone | {test} if alone else self.alone - {test}
        self.schedule.requeue(
            test,
            self.kinds[test]._replace(avoid=frozenset({self.gpus.get(by, "")}), alone=alone),
        )
        self._act()

    @precondition(lambda self: self.verdicts)
    @rule(data=st.data(), gpus=st.sampled_from([2, 3]))
    def a_test_wants_more_gpus(self, data: Any, gpus: int) -> None:
        test = data.draw(st.sampled_from(sorted(self.verdicts)))
        del self.verdicts[test]
        self.lent.pop(test, None)
        self.kinds[test] = self.kinds[test]._replace(gpus=gpus)
        self.schedule.requeue(test, self.kinds[test])
        self._act()

    # --- what always holds ---

    @invariant()
    def nothing_is_twice_or_nowhere(self) -> None:
        if not hasattr(self, "schedule"):
            return
        held: list[int] = list(self.verdicts)
        for worker in self.workers.values():
            held += self._held(worker)
        assert len(held) == len(set(held))
        assert self.schedule.unfinished == self.number - len(self.verdicts)

    @invariant()
    def no_gpu_is_lent_twice(self) -> None:
        used: list[str] = []
        shared: dict[str, list[int]] = {}
        for worker in self.workers.values():
            if worker.running is None or worker.through:
                continue
            if self.slots == 1 or worker.running in self.lent:
                used += self.lent.get(worker.running, worker.gpus)
            elif self.kinds[worker.running].gpus != 0:
                size = self.kinds[worker.running].memory or TOTAL // self.slots
                shared.setdefault(worker.gpus[0], []).append(min(size, TOTAL))
        assert len(used) == len(set(used))
        assert shared.keys().isdisjoint(used)
        for sizes in shared.values():
            assert len(sizes) <= self.slots
            assert sum(sizes) <= TOTAL, shared

    @invariant()
    def a_name_is_never_used_twice_at_once(self) -> None:
        running = [each.running for each in self.workers.values() if each.running is not None]
        serials = [self.kinds[test].serial for test in running if self.kinds[test].serial]
        assert len(serials) == len(set(serials))

    @invariant()
    def nobody_is_idle_who_could_run_something(self) -> None:
        if not hasattr(self, "schedule") or self.strict:
            return
        held = {test for worker in self.workers.values() for test in self._held(worker)}
        reservations = list(self.schedule.reservations)
        promised = {each.test for each in reservations if not each.begun}
        locked = {self.kinds[test].serial for test in held | promised}
        reserved = self.schedule.reservations.reserved()
        for worker in self.workers.values():
            has_nothing = worker.running is None or worker.told
            if (
                worker.name in self.retired
                or worker.holds
                or worker.name in self.paused
                or worker.name in reserved
                or self._is_for_others(worker.name)
                or set(self._held(worker)) - {worker.running}
            ):
                continue
            for test in set(range(self.number)) - held - promised - set(self.verdicts):
                kind = self.kinds[test]
                fits = (
                    not self.groups[test]
                    and (kind.gpus or 0) < 2
                    and test not in worker.lacks | self.alone
                    and self.gpus.get(self.avoided.get(test, "")) != worker.gpus[0]
                    and not (test in self.avoided and worker.name in self.suspects)
                    and (not kind.serial or kind.serial not in locked)
                )
                assert not (has_nothing and fits), (worker.name, test)

    def _is_for_others(self, name: str) -> bool:
        """Whether it may have to leave memory to others."""
        if self.slots == 1:
            return False
        sharing = self._sharing(name)
        kept = self.schedule.reservations.reserved()
        return any(each in kept for each in sharing) or any(
            self._held(self.workers[each]) for each in sharing if each != name
        )

    def teardown(self) -> None:
        """Whatever happened: if those who are left go on, all tests get their verdicts."""
        if not hasattr(self, "schedule"):
            return
        for worker in self.workers.values():
            if worker.holds:
                self._go_on(worker)
        for _ in range(20 * self.number + 200):
            if not self.schedule.unfinished:
                break
            self._act()
            for worker in list(self.workers.values()):
                self._hear(worker)
                self._step(worker)
        assert not self.schedule.unfinished
        assert set(self.verdicts) == set(range(self.number))


class Breaking(Machine):
    """The same where workers die, and their GPUs break."""

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), replaced=st.booleans())
    def a_worker_dies(self, data: Any, replaced: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.workers)))
        worker = self.workers.pop(name)
        del self.inbox[name]
        blamed = self.schedule.remove_worker(name)
        assert blamed == worker.running
        if blamed is not None:
            self._verdict(blamed, "died")
        if replaced:
            self._add(frozenset(), worker.gpus[0])
        self._pause()
        self._act()

    @precondition(lambda self: len(set(self.workers) - self.retired) > 1)
    @rule(data=st.data())
    def a_worker_is_retired(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(set(self.workers) - self.retired)))
        if set(self.workers) - self.retired <= set(self._sharing(name)):
            return  # the last ones
        for each in self._sharing(name):
            self.retired.add(each)
            self.schedule.retire(each)
        self._act()

    @precondition(lambda self: self.retired & set(self.workers))
    @rule(data=st.data())
    def a_worker_is_back(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self.retired & set(self.workers))))
        for each in self._sharing(name):
            self.retired.discard(each)
            self.schedule.readmit(each)
        self._act()

    @precondition(lambda self: any(not each.holds for each in self.workers.values()))
    @rule(data=st.data())
    def a_worker_holds(self, data: Any) -> None:
        names = sorted(name for name, each in self.workers.items() if not each.holds)
        worker = self.workers[data.draw(st.sampled_from(names))]
        worker.holds, worker.kept = True, 0
        self.schedule.hold(worker.name)
        self._pause()
        self._act()

    @precondition(lambda self: any(each.holds for each in self.workers.values()))
    @rule(data=st.data())
    def a_worker_that_holds_goes_on(self, data: Any) -> None:
        names = sorted(name for name, each in self.workers.items() if each.holds)
        self._go_on(self.workers[data.draw(st.sampled_from(names))])

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def some_are_suspect(self, data: Any) -> None:
        self.suspects = data.draw(st.sets(st.sampled_from(sorted(self.workers))))
        self.schedule.suspect(self.suspects)
        self._act()

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def a_worker_finds_its_gpus_sick(self, data: Any) -> None:
        worker = self.workers[data.draw(st.sampled_from(sorted(self.workers)))]
        if worker.running is None:
            given = list(worker.queue)[worker.kept :]
            worker.queue = deque(list(worker.queue)[: worker.kept])
            self.schedule.returned(worker.name, given)
            self._act()


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase
Breaking.TestCase.settings = Machine.TestCase.settings
TestBreaking = Breaking.TestCase


def _sent(decisions: Iterable[Decision]) -> dict[str, tuple[int, ...]]:
    return {each.worker: each.tests for each in decisions if isinstance(each, Send)}


def _schedule(seconds: list[float | None], groups: str = "", workers: int = 2) -> Schedule:
    schedule = Schedule(seconds)
    tests = [
        units.Test(number, group.strip(), seconds[number])
        for number, group in enumerate(groups or " " * len(seconds))
    ]
    schedule.add_units(soft_units(tests, sort=workers > 1))
    for number in range(workers):
        schedule.add_worker(f"gw{number}")
    return schedule


def test_what_takes_longest_goes_first_and_alone() -> None:
    schedule = _schedule([0.01, 3.0, 5.0, 0.01])
    assert _sent(schedule.decide()) == {"gw0": (2,), "gw1": (1,)}
    schedule.begins("gw0", 2)
    schedule.begins("gw1", 1)
    assert schedule.decide() == []
    schedule.waits("gw1")
    assert _sent(schedule.decide()) == {"gw1": (0,)}


def test_quick_tests_travel_together_and_are_called_back_when_somebody_waits() -> None:
    schedule = _schedule([0.01] * 10)
    assert _sent(schedule.decide()) == {"gw0": (0, 1, 2, 3, 4), "gw1": (5, 6, 7)}
    schedule.begins("gw0", 0)
    for test in (5, 6, 7):
        schedule.begins("gw1", test)
        schedule.completed("gw1", test, 0.01)
    schedule.waits("gw1")
    assert _sent(schedule.decide()) == {"gw1": (8,)}
    schedule.begins("gw1", 8)
    schedule.waits("gw1")
    assert _sent(schedule.decide()) == {"gw1": (9,)}
    schedule.begins("gw1", 9)
    schedule.waits("gw1")
    assert schedule.decide() == [Recall("gw0", (3, 4))]
    schedule.returned("gw0", [4])
    assert _sent(schedule.decide()) == {"gw1": (4,)}


def test_what_could_not_be_given_back_is_not_asked_for_until_something_happens() -> None:
    schedule = _schedule([None] * 4)
    assert _sent(schedule.decide()) == {"gw0": (0, 1), "gw1": (2,)}
    schedule.begins("gw0", 0)
    schedule.begins("gw1", 2)
    schedule.waits("gw1")
    assert _sent(schedule.decide()) == {"gw1": (3,)}
    schedule.begins("gw1", 3)
    schedule.waits("gw1")
    assert schedule.decide() == [Recall("gw0", (1,))]
    schedule.returned("gw0", [])
    assert schedule.decide() == [SettleWorker("gw1")]
    assert schedule.decide() == []
    schedule.begins("gw0", 1)
    assert schedule.decide() == []


@pytest.mark.parametrize(
    ("groups", "other", "second"), [("aaabbb", 3, 1), ("a  a  ", 1, 3), ("a bab ", 1, 2)]
)
def test_a_group_stays_with_its_worker_while_there_is_other_work(
    groups: str, other: int, second: int
) -> None:
    schedule = _schedule([1.0] * 6, groups)
    assert _sent(schedule.decide()) == {"gw0": (0,), "gw1": (other,)}
    schedule.begins("gw0", 0)
    schedule.waits("gw0")
    assert _sent(schedule.decide()) == {"gw0": (second,)}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_group_is_split_if_somebody_would_be_idle(workers: int) -> None:
    schedule = _schedule([1.0] * 6, "aaaaaa", workers)
    sent = _sent(schedule.decide())
    assert sent == ({"gw0": (0,)} if workers == 1 else {"gw0": (0,), "gw1": (3,)})


def test_a_group_of_quick_tests_is_not_split() -> None:
    schedule = _schedule([0.01] * 6, "aaaaaa")
    assert set(_sent(schedule.decide())) == {"gw0"}
    schedule.begins("gw0", 0)
    assert set(_sent(schedule.decide())) == {"gw0"}


def test_a_worker_with_nothing_to_do_is_told_to_tear_down_once() -> None:
    schedule = _schedule([1.0], workers=1)
    schedule.decide()
    schedule.begins("gw0", 0)
    schedule.waits("gw0")
    assert schedule.decide() == [SettleWorker("gw0")]
    assert schedule.decide() == []
    schedule.completed("gw0", 0, 1.0)
    assert schedule.unfinished == 0


def test_a_test_that_nobody_has_collected_is_not_waited_for() -> None:
    schedule = Schedule([None, None])
    schedule.add_units(soft_units([units.Test(0), units.Test(1)], sort=False))
    schedule.add_worker("gw0", lacks=frozenset({1}))
    schedule.expect(1)
    assert _sent(schedule.decide()) == {"gw0": (0,)}
    schedule.expect(0)
    assert schedule.decide() == [Unrunnable(1)]


def test_another_attempt_goes_to_other_gpus() -> None:
    schedule = Schedule([None])
    schedule.add_worker("gw0", ["/0"])
    schedule.add_worker("gw1", ["/1"])
    schedule.requeue(0, ANY._replace(avoid=frozenset({"/0"})))
    assert _sent(schedule.decide()) == {"gw1": (0,)}


def _lent(schedule: Schedule) -> list[Lend]:
    return [each for each in schedule.decide() if isinstance(each, Lend)]


def _gpus(*tests: int | None) -> Schedule:
    """Four workers with two GPUs each, and one that nobody owns; what each test needs."""
    schedule = Schedule([10.0] * len(tests), unowned=["/8"])
    found = [units.Test(number, kind=Kind(gpus=gpus)) for number, gpus in enumerate(tests)]
    for test in found:
        schedule.add_units(soft_units([test], sort=False))
    for number in range(4):
        schedule.add_worker(f"gw{number}", [f"/{2 * number}", f"/{2 * number + 1}"])
    return schedule


def test_a_test_that_needs_more_gpus_gets_neighbours_who_are_free() -> None:
    schedule = _gpus(4)
    assert _lent(schedule) == [Lend("gw0", 0, ("/0", "/1", "/2", "/3"))]
    schedule.begins("gw0", 0)
    schedule.completed("gw0", 0, 1.0)
    assert schedule.unfinished == 0


def test_what_nobody_owns_is_lent_too() -> None:
    assert _lent(_gpus(3)) == [Lend("gw3", 0, ("/6", "/7", "/8"))]


def test_busy_neighbours_are_waited_for_and_the_others_go_on() -> None:
    schedule = _gpus(None, None, None, None, None, None)
    sent = _sent(schedule.decide())
    assert len(sent) == 4
    for name, tests in sent.items():
        schedule.begins(name, tests[0])
    schedule.requeue(5, Kind(gpus=4))
    assert schedule.decide() == []
    schedule.waits("gw0")
    assert schedule.decide() == [SettleWorker("gw0")]
    schedule.completed("gw0", sent["gw0"][0], 10.0)
    assert schedule.decide() == []
    schedule.waits("gw2")
    assert set(_sent(schedule.decide())) == {"gw2"}
    schedule.waits("gw1")
    assert schedule.decide() == [SettleWorker("gw1")]
    schedule.completed("gw1", sent["gw1"][0], 10.0)
    assert _lent(schedule) == [Lend("gw0", 5, ("/0", "/1", "/2", "/3"))]


def test_a_gang_whose_member_dies_is_put_together_anew() -> None:
    schedule = _gpus(None, 4)
    [sent] = [each for each in schedule.decide() if isinstance(each, Send)]
    assert sent.worker not in ("gw0", "gw1")
    schedule.begins("gw0", 1)
    assert schedule.remove_worker("gw1") is None
    assert schedule.remove_worker("gw0") == 1


def test_more_gpus_than_are_left_are_not_waited_for() -> None:
    schedule = _gpus(8)
    schedule.retire("gw3")
    schedule.retire("gw2")
    assert schedule.decide() == [Unrunnable(0)]


def test_an_attempt_alone_waits_until_its_worker_is_free() -> None:
    schedule = Schedule([None])
    schedule.add_worker("gw0", ["/0"])
    schedule.add_worker("gw1", ["/0"])
    schedule.add_worker("gw2", ["/1"])
    schedule.requeue(0, Kind(avoid=frozenset({"/1"}), alone=True))
    assert _lent(schedule) == [Lend("gw0", 0, ("/0",))]


def test_a_worker_without_gpus_runs_only_what_needs_none() -> None:
    schedule = Schedule([None] * 2)
    kinds = [Kind(gpus=0), Kind()]
    for number, kind in enumerate(kinds):
        schedule.add_units(soft_units([units.Test(number, kind=kind)], sort=False))
    schedule.add_worker("gw0", cpu=True)
    assert _sent(schedule.decide()) == {"gw0": (0,)}


def test_a_group_is_not_called_back_from_who_is_about_to_begin_it() -> None:
    schedule = Schedule([None] * 3)
    tests = [units.Test(number, "a") for number in range(3)]
    schedule.add_units(strict_units(tests, lambda _: 1.0, sort=True))
    schedule.add_worker("gw0")
    schedule.add_worker("gw1")
    assert schedule.decide() == [Send("gw0", (0, 1))]


def test_what_is_reserved_for_a_gang_whose_member_dies_can_be_reserved_again() -> None:
    schedule = _gpus(None, None, None, None)
    sent = _sent(schedule.decide())
    for name, tests in sent.items():
        schedule.begins(name, tests[0])
    schedule.add_units(soft_units([units.Test(3, kind=Kind(8, "name"))], sort=False))
    assert schedule.decide() == []
    schedule.remove_worker("gw3")
    schedule.add_worker("gw4", ["/6", "/7"])
    for name in ("gw0", "gw1", "gw2"):
        schedule.waits(name)
        schedule.completed(name, sent[name][0], 1.0)
    assert Lend("gw0", 3, tuple(f"/{number}" for number in range(8))) in schedule.decide()


def test_a_gang_has_no_member_that_was_retired_before_it_began() -> None:
    schedule = _gpus(None)
    [(name, [test])] = _sent(schedule.decide()).items()
    schedule.begins(name, test)
    schedule.requeue(1, Kind(8))
    assert _lent(schedule) == []
    schedule.retire("gw1")
    assert Unrunnable(1) in schedule.decide()


def test_gpus_are_free_again_when_their_leader_gives_the_test_back() -> None:
    schedule = _gpus(8)
    assert len(_lent(schedule)) == 1
    schedule.returned("gw0", [0])
    assert _lent(schedule) == [Lend("gw0", 0, tuple(f"/{number}" for number in range(8)))]


@pytest.mark.parametrize("strict", [False, True])
def test_who_holds_a_group_leaves_others_what_it_did_not_collect(strict: bool) -> None:
    schedule = Schedule([1.0] * 3)
    tests = [units.Test(number, "a") for number in range(3)]
    schedule.add_units(
        strict_units(tests, lambda _: 1.0, sort=False) if strict else soft_units(tests, sort=False)
    )
    schedule.add_worker("gw0", lacks=frozenset({1}))
    schedule.expect(1)
    assert _sent(schedule.decide()) == {"gw0": (0,)}
    schedule.begins("gw0", 0)
    schedule.waits("gw0")
    schedule.expect(0)
    decisions = schedule.decide()
    assert Unrunnable(1) in decisions
    assert _sent(decisions) == {"gw0": (2,)}


def test_a_test_without_gpus_is_not_kept_from_workers_that_have_none() -> None:
    schedule = Schedule([None])
    schedule.add_worker("gw0", ["/0"])
    schedule.add_worker("gw1", cpu=True)
    schedule.requeue(0, Kind(0, avoid=frozenset({"/0"}), alone=True))
    assert _sent(schedule.decide()) == {"gw1": (0,)}


def test_a_gang_is_led_by_a_worker_that_has_collected_the_test() -> None:
    schedule = Schedule([None])
    schedule.add_units(soft_units([units.Test(0, kind=Kind(gpus=2))], sort=False))
    schedule.add_worker("gw0", ["/0"], lacks=frozenset({0}))
    schedule.add_worker("gw1", ["/1"])
    assert _lent(schedule) == [Lend("gw1", 0, ("/0", "/1"))]


def test_a_worker_is_not_idle_before_a_row_that_begins_with_what_it_did_not_collect() -> None:
    schedule = Schedule([None, None])
    schedule.add_worker("gw0", lacks=frozenset({0}))
    schedule.expect(1)
    schedule.add_units(soft_units([units.Test(0), units.Test(1)], sort=False))
    assert _sent(schedule.decide()) == {"gw0": (1,)}


def test_of_a_group_that_is_split_nobody_is_sent_what_it_did_not_collect() -> None:
    schedule = Schedule([1.0] * 4)
    schedule.add_units(soft_units([units.Test(number, "a") for number in range(4)], sort=True))
    schedule.add_worker("gw0")
    schedule.add_worker("gw1", lacks=frozenset({2}))
    assert _sent(schedule.decide()) == {"gw0": (0,), "gw1": (3,)}


def test_a_test_that_no_gang_can_run_does_not_wait_behind_one_that_a_gang_can() -> None:
    schedule = Schedule([None, None])
    schedule.add_units(soft_units([units.Test(n, kind=Kind(gpus=2)) for n in (0, 1)], sort=False))
    schedule.add_worker("gw0", ["/0"], lacks=frozenset({1}))
    schedule.add_worker("gw1", ["/1"], lacks=frozenset({1}))
    assert schedule.decide() == [Unrunnable(1), Lend("gw0", 0, ("/0", "/1"))]


def test_a_gang_takes_over_what_the_only_worker_with_so_many_gpus_may_not_try_again() -> None:
    schedule = Schedule([None])
    schedule.add_worker("gw0", ["/0", "/1"])
    schedule.add_worker("gw1", ["/2"])
    schedule.add_worker("gw2", ["/3"])
    schedule.requeue(0, Kind(gpus=2, avoid=frozenset({"/0", "/1"})))
    assert _lent(schedule) == [Lend("gw1", 0, ("/2", "/3"))]


def test_who_holds_gets_nothing_and_leaves_what_it_has_to_others() -> None:
    schedule = _schedule([0.01] * 10)
    schedule.decide()
    schedule.begins("gw1", 5)
    schedule.hold("gw1")
    assert schedule.decide() == [Recall("gw1", (6, 7)), SettleWorker("gw1")]
    schedule.returned("gw1", [6, 7])
    schedule.completed("gw1", 5, 0.01)
    for test in range(5):
        schedule.begins("gw0", test)
        schedule.completed("gw0", test, 0.01)
    schedule.waits("gw0")
    assert set(_sent(schedule.decide())) == {"gw0"}
    schedule.go_on("gw1")
    assert "gw1" in _sent(schedule.decide())


def test_what_a_worker_that_holds_waits_for_goes_before_the_rest_of_a_group() -> None:
    schedule = _schedule([1.0] * 6, "aaaaaa", workers=1)
    schedule.add_worker("gw1", ["/1"])
    schedule.decide()
    schedule.begins("gw0", 0)
    schedule.hold("gw1")
    schedule.requeue(5, ANY._replace(avoid=frozenset({"/1"})))
    schedule.waits("gw0")
    assert _sent(schedule.decide()) == {"gw0": (5,)}


def test_what_others_failed_at_is_for_who_is_not_suspect() -> None:
    schedule = Schedule([None])
    for number in range(3):
        schedule.add_worker(f"gw{number}", [f"/{number}"])
    again = ANY._replace(avoid=frozenset({"/0"}))
    schedule.requeue(0, again)
    assert _sent(schedule.decide()) == {"gw1": (0,)}
    schedule.suspect({"gw0", "gw1"})
    assert schedule.decide() == [Recall("gw1", (0,))]
    schedule.returned("gw1", [0])
    assert _sent(schedule.decide()) == {"gw2": (0,)}
    schedule.suspect({"gw0", "gw1", "gw2"})
    assert schedule.able_now(again, 0)


def test_who_replaces_a_member_of_a_gang_gets_nothing_while_its_test_runs() -> None:
    schedule = _gpus(4, None)
    [lend] = _lent(schedule)
    schedule.begins(lend.worker, lend.test)
    [(member, gpus)] = [
        (name, [f"/{2 * number}", f"/{2 * number + 1}"])
        for number, name in enumerate(("gw0", "gw1", "gw2", "gw3"))
        if name != lend.worker and f"/{2 * number}" in lend.gpus
    ]
    schedule.remove_worker(member)
    schedule.add_worker("gw4", gpus)
    assert "gw4" in schedule.reservations.reserved()
    schedule.completed(lend.worker, lend.test, 1.0)
    assert "gw4" not in schedule.reservations.reserved()


def _slots(
    *memory: int, slots: int = 2, total: int = 80, gpus: int | None = None, group: str = ""
) -> Schedule:
    """Two slots of a slice of two GPUs; what each test declares, 0 for nothing."""
    schedule = Schedule([10.0] * len(memory))
    for number, size in enumerate(memory):
        kind = Kind(gpus, memory=size, share=not size)
        schedule.add_units(soft_units([units.Test(number, group, 10.0, kind)], sort=False))
    for number in range(2):
        schedule.add_worker(f"gw{number}", ["/0", "/1"], memory=[total, total], slots=slots)
    return schedule


@pytest.mark.parametrize(
    ("first", "second", "total", "together"),
    [
        (0, 0, 80, True),
        (50, 30, 80, True),
        (50, 31, 80, False),
        (0, 40, 80, True),
        (0, 41, 80, False),
        (200, 1, 80, False),
        (0, 0, 0, True),
        (1, 0, 0, False),
    ],
)
def test_tests_share_a_slice_whose_memory_fits(
    first: int, second: int, total: int, together: bool
) -> None:
    schedule = _slots(first, second, total=total)
    sent = _sent(schedule.decide())
    assert sent == ({"gw0": (0,), "gw1": (1,)} if together else {"gw0": (0,)})
    schedule.begins("gw0", 0)
    schedule.waits("gw0")
    schedule.completed("gw0", 0, 10.0)
    assert len(_sent(schedule.decide())) == (not together)


def test_a_test_counts_on_the_gpus_that_it_sees() -> None:
    schedule = _slots(50, 50, gpus=1)  # both see the first one
    assert _sent(schedule.decide()) == {"gw0": (0,)}
    assert _sent(_slots(0, 0, gpus=0, slots=9).decide()) == {"gw0": (0,), "gw1": (1,)}


def test_a_large_test_is_not_passed_over_for_ever() -> None:
    schedule = _slots(0, 0, 60, 10, 30, 0)
    assert _sent(schedule.decide()) == {"gw0": (0,), "gw1": (1,)}
    for worker, test in (("gw0", 0), ("gw1", 1)):
        schedule.begins(worker, test)
    schedule.waits("gw1")
    # It fits beside nothing that declares nothing; what fits beside it does not have to wait.
    decisions = schedule.decide()
    assert not any(2 in tests or 4 in tests or 5 in tests for tests in _sent(decisions).values())
    assert set(schedule.reservations.reserved()) == {"gw0", "gw1"}
    schedule.waits("gw0")
    schedule.completed("gw0", 0, 10.0)
    schedule.completed("gw1", 1, 10.0)
    for test in (2, 3):
        [(worker, tests)] = _sent(schedule.decide()).items()
        assert tests == (test,)
        schedule.begins(worker, test)
    schedule.waits(worker)
    assert not _sent(schedule.decide())  # neither 30 nor 40 fit beside 60


def test_what_shares_something_counts_as_long_as_it_is_gone_on_with() -> None:
    schedule = Schedule([0.3] * 4)
    large = Kind(memory=60, share=False)
    tests = [units.Test(number, "a", 0.3, large) for number in range(3)]
    schedule.add_units(soft_units([*tests, units.Test(3, "", 0.3)], sort=False))
    for number in range(2):
        schedule.add_worker(f"gw{number}", ["/0"], memory=[80], slots=2)
    sent: list[str] = []
    while schedule.unfinished:
        for worker, numbers in _sent(schedule.decide()).items():
            for test in numbers:
                schedule.begins(worker, test)
                sent.append(f"{test} {worker}")
                schedule.waits(worker)
                schedule.completed(worker, test, 0.3)
    # Nobody comes between them, though nothing runs there.
    assert len({each.split()[1] for each in sent if not each.startswith("3")}) == 1


def test_tests_that_one_worker_has_to_run_count_as_the_one_that_needs_most() -> None:
    kinds = Kind(memory=10, share=False), Kind(memory=60, share=False), ANY, Kind(gpus=0)
    tests = [units.Test(number, "a", 1.0, kind) for number, kind in enumerate(kinds)]
    found = strict_units(tests, lambda _: 1.0, sort=False)
    assert [(unit.kind.memory, unit.kind.share, list(unit.tests)) for unit in found] == [
        (60, True, [0, 1, 2]),
        (0, True, [3]),
    ]
