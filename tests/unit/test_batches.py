"""Which tests make one order, and which are ordered before these are over."""

from __future__ import annotations

import pytest

from pytest_fkit.protocol.endings import Finished
from pytest_fkit.protocol.messages import Ended, Run
from pytest_fkit.protocol.process_keys import OWN, SESSION
from pytest_fkit.worker.tests.batches import (
    FIRST,
    SECONDS,
    Batch,
    Batches,
    Pace,
    Refusal,
    batch_ahead,
    first_batch,
)
from pytest_fkit.worker.tests.sources import Taken


def _runs(*positions: int) -> list[Run | Refusal]:
    return [Run(each, each + 1, SESSION) for each in positions]


def _positions(batch: Batch | None) -> list[int]:
    return [] if batch is None else [run.position for run in batch.runs]


@pytest.mark.parametrize(
    "other",
    [
        Run(2, 3, OWN),
        Run(2, 3, SESSION, timeout=1.0),
        Run(2, 3, SESSION, memory_limit=1),
        Run(2, 3, SESSION, gpu_memory=1),
        Refusal(2, "can't be run"),
    ],
)
def test_a_batch_ends_before_what_is_not_alike(other: Run | Refusal) -> None:
    batch = first_batch([*_runs(0, 1), other, *_runs(3)], 4, 10)
    assert (_positions(batch), batch.following) == ([0, 1], 2)
    assert batch_ahead(batch, [other, *_runs(3)], 4, 10) is None


def test_what_is_ordered_ahead_needs_to_know_what_follows() -> None:
    running = first_batch(_runs(0, 1, 2, 3), 4, 2)
    assert _positions(batch_ahead(running, _runs(2, 3), 4, 2)) == [2, 3]
    assert _positions(batch_ahead(running, _runs(2, 3), None, 2)) == [2]
    assert batch_ahead(running, _runs(2), None, 2) is None
    assert batch_ahead(running, _runs(3), 4, 2) is None  # another worker has got 2 since
    assert batch_ahead(running, [], 2, 2) is None


def test_what_is_ordered_ahead_leaves_it_to_its_process_how_many_have_failed() -> None:
    running = first_batch(_runs(0, 1, 2), 3, 2)
    after = batch_ahead(running, _runs(2), 3, 2)
    assert after is not None
    assert [run.tests_failed for run in after.runs] == [-1]


def test_a_test_with_a_process_of_its_own_is_ordered_ahead_alone() -> None:
    runs: list[Run | Refusal] = [Run(each, each + 1) for each in range(3)]
    running = first_batch(runs, 3, 10)
    assert (_positions(running), running.following) == ([0], 1)
    assert batch_ahead(running, runs[1:], 3, 10) == Batch([Run(1, 2)], 2)


@pytest.mark.parametrize("goes_on", [True, False])
def test_what_was_ordered_ahead_is_the_next_batch_if_the_keeper_goes_on(goes_on: bool) -> None:
    batches = Batches(one_by_one=False, own_ahead=False, shared_ahead=True)
    numbers = tuple(range(3 * FIRST))
    batch, after = batches.first(_runs(*numbers), Taken(list(numbers), len(numbers)))
    assert after is not None
    assert len(batch.runs) == len(after.runs) == FIRST
    ended = Ended(Finished(), goes_on=goes_on, seconds=SECONDS)
    assert batches.ended(batch, after, FIRST, ended) == (FIRST if goes_on else 0)
    rest = numbers[FIRST:]
    batch, _ = batches.first(_runs(*rest), Taken(list(rest), len(numbers)))
    assert (batch is after) == goes_on


@pytest.mark.parametrize(("one_by_one", "seconds"), [(True, 0.0), (False, 100 * SECONDS)])
def test_nothing_is_ordered_ahead_of_slow_tests_or_where_reports_are_awaited(
    one_by_one: bool, seconds: float
) -> None:
    batches = Batches(one_by_one, own_ahead=False, shared_ahead=True)
    batch, after = batches.first(_runs(0), Taken([0], 1))
    batches.ended(batch, after, 1, Ended(Finished(), goes_on=True, seconds=seconds))
    batch, after = batches.first(_runs(1, 2, 3), Taken([1, 2, 3], 4))
    assert (_positions(batch), after) == ([1], None)


def test_pace_grows_while_orders_are_short_up_to_its_limit() -> None:
    pace = Pace(limit=4 * FIRST)
    taken = []
    for _ in range(4):
        taken.append(pace.most)
        pace.took(pace.most, SECONDS / 100)
    assert taken == [FIRST, 2 * FIRST, 4 * FIRST, 4 * FIRST]
    assert Pace(limit=1).most == 1


def test_pace_does_not_grow_by_orders_that_could_have_been_longer() -> None:
    pace = Pace(limit=1024)
    pace.took(FIRST - 1, 0.0)
    assert pace.most == FIRST


def test_pace_falls_to_what_takes_the_time_of_one_order() -> None:
    pace = Pace(limit=1024)
    for _ in range(10):
        pace.took(pace.most, 0.0)
    pace.took(1000, 10 * SECONDS)
    assert pace.most == 100
    pace.took(1, 100 * SECONDS)
    assert pace.most == 1
