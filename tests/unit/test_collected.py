from __future__ import annotations

import json

import pytest

from pytest_fkit.controller.schedule.collected import CollectedTests
from pytest_fkit.controller.workers.preparation import Durations


def test_equal_collections_need_no_tables() -> None:
    union = CollectedTests()
    first, second = union.add(["a", "b"]), union.add(["a", "b"])
    assert (first.numbers, second.numbers) == (None, None)
    assert union.lacking(first) == frozenset()


def test_tests_that_only_one_worker_has_get_numbers_too() -> None:
    union = CollectedTests()
    first, second = union.add(["a", "b"]), union.add(["b", "c"])
    assert union.nodeids == ["a", "b", "c"]
    assert [second.number(position) for position in (0, 1)] == [1, 2]
    assert [second.position(number) for number in (1, 2)] == [0, 1]
    assert union.lacking(first) == {2}
    assert union.lacking(second) == {0}


def test_a_node_id_may_be_there_twice() -> None:
    union = CollectedTests()
    union.add(["a", "a"])
    second = union.add(["b", "a", "a"])
    assert union.nodeids == ["a", "a", "b"]
    assert [second.number(position) for position in range(3)] == [2, 0, 1]


def test_durations_are_kept_for_the_next_run(pytester: pytest.Pytester) -> None:
    first = Durations(pytester.parseconfigure())
    assert first.expected(["a"]) == [None]
    for nodeid, seconds in (("a", 1.5), ("b", 0.01), ("c", 2.0)):
        first.found(nodeid, seconds)
    first.forget("c")
    first.keep()
    second = Durations(pytester.parseconfigure())
    assert second.expected(["a", "b", "c"]) == [1.5, None, None]


def test_pytest_splits_durations_are_read(pytester: pytest.Pytester) -> None:
    (pytester.path / ".test_durations").write_text(json.dumps({"a": 3.0, "b": "odd"}))
    assert Durations(pytester.parseconfigure()).expected(["a", "b"]) == [3.0, None]


def test_odd_values_in_the_cache_say_nothing(pytester: pytest.Pytester) -> None:
    kept = pytester.path / ".pytest_cache" / "v" / "fkit" / "durations"
    kept.parent.mkdir(parents=True)
    kept.write_text('{"a": "long", "b": NaN, "c": -1, "d": Infinity, "e": 2.5}')
    expected = Durations(pytester.parseconfigure()).expected(["a", "b", "c", "d", "e"])
    assert expected == [None, None, None, None, 2.5]


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_odd_files_say_nothing(pytester: pytest.Pytester, text: str) -> None:
    (pytester.path / ".test_durations").write_text(text)
    assert Durations(pytester.parseconfigure()).expected(["a"]) == [None]
