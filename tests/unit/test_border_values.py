"""The border between controller and worker: its frames, what is shared, and what is held back."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from pytest_fkit.controller.schedule import units
from pytest_fkit.controller.schedule.schedule import Schedule
from pytest_fkit.controller.schedule.units import ANY, one_unit
from pytest_fkit.controller.workers.inbox import HeldBack
from pytest_fkit.protocol import whereabouts
from pytest_fkit.protocol.border import (
    FROM_WORKER,
    TO_WORKER,
    ItemBegins,
    ItemComplete,
    ItemFinished,
    ItemStarted,
    Line,
    Outbox,
    Reported,
    RunTests,
    Told,
    Waits,
    answers,
    orders,
)
from pytest_fkit.protocol.whereabouts import Whereabouts

LOCATION = ("a.py", 0, "b")


def test_messages_of_many_threads_are_in_one_order() -> None:
    inbox, heard = answers(), []
    outbox = Outbox(lambda data: heard.extend(inbox.feed(data)))

    def say() -> None:
        for _ in range(200):
            outbox.send(Line("x"), Waits())

    threads = [threading.Thread(target=say) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == [Line("x"), Waits()] * 800
    assert not inbox.trouble


@pytest.mark.parametrize("sent", [True, False])
def test_an_interruption_while_a_message_is_sent_costs_none(sent: bool) -> None:
    inbox, heard = orders(), []
    interruptions = iter([KeyboardInterrupt])

    def send(data: bytes) -> None:
        interruption = next(interruptions, None)
        if interruption is None or sent:
            heard.extend(inbox.feed(data))
        if interruption is not None:
            raise interruption

    outbox = Outbox(send)
    with pytest.raises(KeyboardInterrupt):
        outbox.send(RunTests((1,)))
    outbox.send(RunTests((2,)))
    assert heard == [RunTests((1,)), RunTests((2,))]
    assert not inbox.trouble


def test_each_side_understands_what_the_other_may_say_and_nothing_else() -> None:
    assert TO_WORKER
    assert FROM_WORKER
    assert not TO_WORKER.keys() & FROM_WORKER.keys()
    assert Reported.__name__ not in FROM_WORKER


# --- whereabouts --------------------------------------------------------------------------------


@pytest.fixture
def shared() -> Whereabouts:
    descriptor = os.memfd_create("it")
    os.ftruncate(descriptor, 4096)
    try:
        found = Whereabouts(descriptor)
    finally:
        os.close(descriptor)
    found.clear()
    return found


def test_what_a_process_writes_others_see(shared: Whereabouts) -> None:
    pid = os.fork()
    if pid == 0:
        shared.runs(7)
        os._exit(0)
    os.waitpid(pid, 0)
    assert (shared.running, shared.at) == (7, 7)
    shared.ran(6)
    assert shared.at == 7
    shared.ran(7)
    assert shared.at is None


def test_a_plugin_that_is_told_of_a_test_is_to_blame_before_its_process(
    shared: Whereabouts,
) -> None:
    shared.runs(7)
    shared.tells(4)
    assert (shared.running, shared.at) == (7, 4)
    shared.told()
    assert shared.at == 7


def test_no_descriptor_is_left_open() -> None:
    descriptor = os.memfd_create("it")
    os.ftruncate(descriptor, 4096)
    before = os.listdir("/proc/self/fd")
    path = f"/proc/{os.getpid()}/fd/{descriptor}"
    assert whereabouts.shared(path) is not None
    assert os.listdir("/proc/self/fd") == before
    os.close(descriptor)
    assert whereabouts.shared(path) is None
    assert whereabouts.shared("") is None


# --- held back ----------------------------------------------------------------------------------


def _reported(when: Any) -> Reported:
    return Reported(3, pytest.TestReport("a.py::b", LOCATION, {}, "passed", None, when))


def test_a_test_that_shares_a_process_is_told_of_as_a_whole(shared: Whereabouts) -> None:
    held = HeldBack(lambda _: shared)
    node: Any = object()
    setup, call = _reported("setup"), _reported("call")
    started, finished = ItemStarted("a.py::b", LOCATION), ItemFinished("a.py::b", LOCATION)
    assert held.pass_on(node, [ItemBegins(3)]) == [ItemBegins(3)]
    shared.runs(3)
    assert held.pass_on(node, [started, setup]) == []
    assert held.begun(node) == started
    shared.runs(4)
    whole: list[Told] = [started, setup, call, finished, ItemComplete(3, 0.1)]
    assert held.pass_on(node, [call, finished, ItemComplete(3, 0.1)]) == whole
    assert held.begun(node) is None


def test_a_test_that_has_its_own_process_is_not_held_back(shared: Whereabouts) -> None:
    held = HeldBack(lambda _: shared)
    node: Any = object()
    told: list[Told] = [ItemBegins(3), ItemStarted("a.py::b", LOCATION)]
    assert held.pass_on(node, told) == told
    shared.runs(9)  # what comes next in the same worker
    setup = _reported("setup")
    assert held.pass_on(node, [setup]) == [setup]
    assert held.release(node) == []


# --- whom the schedule blames -------------------------------------------------------------------


def _schedule() -> Schedule:
    schedule = Schedule([0.01] * 4)
    schedule.add_units(one_unit([units.Test(number, "", 0.01, ANY) for number in range(4)]))
    schedule.add_worker("gw0")
    schedule.decide()
    schedule.begins("gw0", 0)
    return schedule


def test_what_ran_before_the_test_that_killed_its_worker_is_run_again() -> None:
    schedule = _schedule()
    assert schedule.remove_worker("gw0", at=2) == 2
    schedule.add_worker("gw1")
    [send] = schedule.decide()
    assert send.tests == (0, 1, 3)  # type: ignore[union-attr]
    assert schedule.unfinished == 3


@pytest.mark.parametrize("at", [None, 0, 9])
def test_who_is_not_known_better_is_the_one_that_was_told_of(at: int | None) -> None:
    schedule = _schedule()
    assert schedule.remove_worker("gw0", at) == 0
    assert schedule.unfinished == 3
