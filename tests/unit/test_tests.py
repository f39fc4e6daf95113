from __future__ import annotations

from pytest_fkit.worker.tests.sources import AllTests, Taken


def test_all_tests_are_taken_in_order() -> None:
    tests = AllTests(5)
    assert tests.take(2) == Taken([0, 1], 2)
    assert tests.take(2) == Taken([2, 3], 4)
    tests.put_back([3])
    assert tests.take(2) == Taken([3, 4], None)
    assert tests.take(2) is None
