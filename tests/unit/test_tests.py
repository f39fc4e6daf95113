from __future__ import annotations

from pytest_fkit.worker.tests.sources import FIRST, SECONDS, AllTests, Pace, Taken


def test_all_tests_are_taken_in_order() -> None:
    tests = AllTests(5)
    assert tests.take(2) == Taken([0, 1], 2)
    assert tests.take(2) == Taken([2, 3], 4)
    tests.put_back([3])
    assert tests.take(2) == Taken([3, 4], None)
    assert tests.take(2) is None


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
