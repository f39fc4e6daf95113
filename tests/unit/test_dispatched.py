from __future__ import annotations

import threading
from typing import Any

from pytest_fkit.protocol.border import (
    GoOn,
    Holds,
    LendGpus,
    ProbeGpus,
    RecallTests,
    Returned,
    RunTests,
    TearDown,
    Waits,
)
from pytest_fkit.protocol.event_file import GpuError
from pytest_fkit.worker.tests.sources import Dispatched, Taken

ERROR = GpuError("device", "lost")


def _dispatched() -> tuple[Dispatched, list[Any]]:
    sent: list[Any] = []
    return Dispatched(sent.append), sent


def test_tests_are_taken_in_order_and_what_follows_is_not_certain() -> None:
    tests, sent = _dispatched()
    tests.obey(RunTests((4, 2, 7)))
    assert tests.take(2) == Taken([4, 2], 7, certain=False)
    assert tests.keeps(7)
    assert tests.take(2) == Taken([7], None, certain=False)
    assert not tests.keeps(None)
    assert sent == []


def test_what_was_promised_can_not_be_called_back() -> None:
    tests, sent = _dispatched()
    tests.obey(RunTests((1, 2, 3, 4)))
    tests.take(1)
    assert tests.keeps(2)
    tests.obey(RecallTests((2, 3, 4), whole=False))
    assert sent == [Returned((3, 4))]
    assert tests.take(9) == Taken([2], None, certain=False)


def test_what_was_called_back_is_not_promised() -> None:
    tests, _ = _dispatched()
    tests.obey(RunTests((1, 2)))
    tests.take(1)
    tests.obey(RecallTests((2,), whole=False))
    assert not tests.keeps(2)


def test_a_group_is_given_back_as_a_whole_or_not_at_all() -> None:
    tests, sent = _dispatched()
    tests.obey(RunTests((1, 2, 3)))
    tests.take(1)
    tests.obey(RecallTests((1, 2), whole=True))
    tests.obey(RecallTests((2, 3), whole=True))
    assert sent == [Returned(()), Returned((2, 3))]


def test_what_was_put_back_comes_first_and_can_be_called_back() -> None:
    tests, sent = _dispatched()
    tests.obey(RunTests((1, 2, 3)))
    tests.take(3)
    tests.put_back([2, 3])
    tests.obey(RecallTests((3,), whole=False))
    assert sent == [Returned((3,))]
    assert tests.take(3) == Taken([2], None, certain=False)


def test_what_is_ordered_already_comes_next_whatever_happens() -> None:
    tests, sent = _dispatched()
    tests.obey(RunTests((1, 2, 3, 4)))
    tests.take(4)
    tests.put_back([2, 3, 4], 2)
    tests.obey(RecallTests((2, 3, 4), whole=False))
    assert sent == [Returned((4,))]
    tests.hold()
    tests.doubt()
    assert tests.keeps(2)
    assert tests.take(3) == Taken([2, 3], None, certain=False)
    assert not tests.keeps(None)


def test_who_has_nothing_says_so_once_and_waits() -> None:
    sent: list[Any] = []

    def answer(message: Any) -> None:
        sent.append(message)
        threading.Thread(target=next(answers)).start()

    tests = Dispatched(answer)
    answers = iter([lambda: tests.obey(TearDown()), lambda: tests.obey(RunTests((5,))), tests.end])
    assert tests.take(1) == Taken([], None)
    threading.Thread(target=next(answers)).start()
    assert tests.take(1) == Taken([5], None, certain=False)
    assert tests.take(1) is None
    assert sent == [Waits(), Waits()]


def test_gpus_in_doubt_are_tried_before_the_next_test_and_not_before() -> None:
    sent: list[object] = []
    answers = iter([False, True])

    def probe() -> bool:
        sent.append("probed")
        return next(answers)

    def send(message: Any) -> None:
        sent.append(message)
        if isinstance(message, Returned):
            tests.doubt()
            tests.obey(RunTests((2,)))
        if isinstance(message, Holds):
            tests.obey(GoOn(message.hold))

    tests = Dispatched(send, probe)
    tests.obey(RunTests((1, 2)))
    assert tests.take(5) == Taken([2], None, certain=False)
    assert sent == ["probed", Returned((1, 2)), Holds(1), "probed"]


def test_a_probe_that_is_asked_for_does_not_wait_for_a_test() -> None:
    sent: list[object] = []

    def probe() -> bool:
        sent.append("probed")
        return True

    def answer(message: Any) -> None:
        sent.append(message)
        threading.Thread(target=tests.obey, args=(ProbeGpus(),)).start()

    tests = Dispatched(answer, probe)
    threading.Timer(0.2, tests.end).start()
    assert tests.take(1) is None
    assert sent == [Waits(), "probed"]


def test_a_test_that_was_given_back_is_not_lent_when_it_comes_again() -> None:
    tests, sent = _dispatched()
    tests.obey(LendGpus(3, {"GPUS": "0,1"}))
    tests.obey(RecallTests((3,), whole=False))
    tests.obey(RunTests((3,)))
    assert sent == [Returned((3,))]
    assert tests.take(1) == Taken([3], None, certain=False)


def test_who_is_held_begins_nothing_before_the_last_hold_is_over() -> None:
    tests, sent = _dispatched()
    tests.obey(RunTests((1, 2, 3)))
    tests.take(1)
    tests.hold(1, ERROR)
    assert not tests.keeps(2)  # the controller may want it back
    tests.obey(TearDown())
    assert tests.take(1) == Taken([], None)
    tests.hold()
    tests.obey(GoOn(1))  # which has crossed with the second hold
    tests.obey(RunTests((4,)))
    tests.obey(RecallTests((2,), whole=False))
    tests.obey(TearDown())
    assert tests.take(1) == Taken([], None)
    tests.obey(GoOn(2))
    assert tests.take(9) == Taken([3, 4], None, certain=False)
    assert sent == [Holds(1, 1, ERROR), Holds(2), Returned((2,))]


def test_who_goes_on_and_has_nothing_says_so_and_the_end_of_the_run_ends_a_hold() -> None:
    sent: list[Any] = []

    def send(message: Any) -> None:
        sent.append(message)
        if isinstance(message, Waits):
            threading.Thread(target=tests.end).start()

    tests = Dispatched(send)
    tests.hold()
    threading.Thread(target=tests.obey, args=(GoOn(1),)).start()
    assert tests.take(1) is None
    tests.hold()
    assert tests.take(1) is None
    assert sent == [Holds(1), Waits(), Holds(2)]
