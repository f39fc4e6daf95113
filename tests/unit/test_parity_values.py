"""How the benchmark of public suites tells fkit's differences from xdist's and a suite's own."""

from __future__ import annotations

import pytest

from benchmarks.outcomes import Difference, Plain, Result, compare, differences

PASSED = ["setup:passed", "call:passed", "teardown:passed"]
FAILED = ["setup:passed", "call:failed", "teardown:passed"]


def plainly(**outcomes: list[str]) -> Plain:
    """Two plain runs that agree."""
    return Plain(Result(0, outcomes), Result(0, outcomes))


def names(found: list[Difference]) -> list[str]:
    """What differs."""
    return [difference.what for difference in found]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (Result(0, {"a": PASSED}), []),
        (Result(0, {"a": FAILED}), ["a"]),
        (Result(0, {"a": [*PASSED, *PASSED]}), ["a"]),
        (Result(0, {"a": PASSED[:2]}), ["a"]),
        (Result(0, {}), ["a"]),
        (Result(0, {"a": PASSED, "b": PASSED}), ["b"]),
        (Result(1, {"a": PASSED}), ["exit status"]),
        (Result(-1, {}), ["exit status", "a"]),
    ],
)
def test_each_outcome_of_each_test_and_the_exit_status_count(
    other: Result, expected: list[str]
) -> None:
    assert names(differences(plainly(a=PASSED), other)) == expected


def test_a_difference_says_what_was_expected_what_came_and_why() -> None:
    other = Result(0, {"a": FAILED}, {"a": "assert 1 == 2"})
    (difference,) = differences(plainly(a=PASSED), other)
    text = str(difference)
    assert text.startswith("a\n")
    assert "call:passed" in text.partition(" -> ")[0]
    assert "call:failed" in text.partition(" -> ")[2]
    assert text.endswith("assert 1 == 2")


@pytest.mark.parametrize("again", [{"a": FAILED}, {}, {"a": PASSED, "b": PASSED}])
def test_what_is_unstable_in_plain_pytest_is_left_out_and_named(
    again: dict[str, list[str]],
) -> None:
    plain = Plain(Result(0, {"a": PASSED}), Result(0, again))
    unstable = plain.unstable()
    assert unstable in (["a"], ["b"])
    for outcomes in ({}, dict.fromkeys(unstable, FAILED)):
        found = differences(plain, Result(0, outcomes))
        assert not {*unstable} & {*names(found)}


def test_an_unstable_exit_status_is_left_out() -> None:
    plain = Plain(Result(0, {"a": PASSED}), Result(1, {"a": PASSED}))
    assert differences(plain, Result(2, {"a": PASSED})) == []


@pytest.mark.parametrize(
    ("in_xdist", "here", "own", "as_xdist", "as_plain"),
    [
        (PASSED, PASSED, 0, 0, 0),
        (PASSED, FAILED, 1, 0, 0),
        (FAILED, FAILED, 0, 1, 0),
        (FAILED, PASSED, 0, 0, 1),
        (FAILED, PASSED[:1], 1, 0, 0),
    ],
)
def test_where_xdist_alone_differs_either_is_right(
    in_xdist: list[str], here: list[str], own: int, as_xdist: int, as_plain: int
) -> None:
    found = compare(
        plainly(a=PASSED, b=PASSED),
        Result(0, {"a": in_xdist, "b": PASSED}),
        Result(0, {"a": here, "b": PASSED}),
    )
    assert (len(found.own), len(found.as_xdist), len(found.as_plain)) == (own, as_xdist, as_plain)


def test_an_exit_status_is_compared_as_an_outcome_is() -> None:
    found = compare(plainly(a=PASSED), Result(1, {"a": FAILED}), Result(0, {"a": FAILED}))
    assert names(found.as_xdist) == ["a"]
    assert names(found.as_plain) == ["exit status"]
    assert found.own == []


def test_a_row_of_the_table_says_what_is_whose() -> None:
    assert str(compare(plainly(a=PASSED), Result(0, {"a": PASSED}), Result(0))) == "1 differ"
    text = str(compare(plainly(a=PASSED), Result(0, {"a": FAILED}), Result(0, {"a": PASSED})))
    assert text.startswith("equal; ")
    assert "xdist alone differs in 1: here 0 as there, 1 as plain" in text


def test_a_test_is_counted_by_the_worst_of_its_phases() -> None:
    outcomes = {"a": PASSED, "b": FAILED, "c": ["setup:skipped", "teardown:passed"]}
    assert Result(1, outcomes).counts() == "1 failed, 1 passed, 1 skipped"
