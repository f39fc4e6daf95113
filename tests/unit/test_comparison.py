"""What is a difference between two runs, and what is noise."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_fkit.journal.causes import Cause
from pytest_fkit.journal.comparison import MEASURES, Change, Growth, Side, State, compare, side
from pytest_fkit.journal.diff import lines, markdown, values
from pytest_fkit.journal.events import event
from pytest_fkit.journal.history import history

CAUSES = [Cause("SIGSEGV", "", "a.py in f"), Cause("ValueError", "bad", "")]
TAKEN = st.floats(0, 1e12, allow_nan=False)
FIGURES = st.dictionaries(
    st.sampled_from(sorted(MEASURES)), st.lists(TAKEN, min_size=1, max_size=2).map(tuple)
)
STATES = st.one_of(
    st.builds(State, st.sampled_from(["failed", "error"]), st.sampled_from(CAUSES)),
    st.builds(State, st.just("passed"), st.none(), st.booleans(), FIGURES),
    st.builds(State, st.sampled_from(["skipped", "xfailed", ""])),
)
SIDES = st.dictionaries(st.integers(0, 6).map("test_{}".format), STATES, max_size=6)

PARTNERS = [
    ("added", "gone"), ("missing", "completed"), ("flaky", "steady"), ("changed", "changed"),
    ("still", "still"),
]  # fmt: skip
GROWTHS = [("slower", "faster"), ("heavier", "lighter")]


def turned(changes: list[Change]) -> list[Change]:
    return [Change(test, new, old) for test, old, new in changes]


@given(SIDES, SIDES)
@settings(deadline=None, max_examples=60)
def test_the_other_way_round_everything_is_its_partner(old: Side, new: Side) -> None:
    there, back = compare(old, new), compare(new, old)
    for one, other in PARTNERS:
        for first, second in ((there, back), (back, there)):
            assert getattr(first, one) == turned(getattr(second, other)), one
    for one, other in GROWTHS:
        for first, second in ((there, back), (back, there)):
            assert getattr(first, one) == getattr(second, other), one
    late = {change.test for change in (*there.added, *there.completed)}
    assert [each for each in there.new if each.test not in late] == sorted(
        turned([*back.fixed, *back.excused]), key=lambda each: each.test
    )
    assert all(each.new and each.new.outcome == "passed" for each in there.fixed)
    assert {each.test for each in there.new} >= {
        each.test for each in (*there.added, *there.completed) if each.new and each.new.cause
    }
    assert there.is_empty == back.is_empty


@given(SIDES)
@settings(deadline=None, max_examples=25)
def test_what_is_compared_with_itself_has_no_difference(tests: Side) -> None:
    found = compare(tests, tests)
    assert found.is_empty
    assert {each.test for each in found.still} == {t for t, it in tests.items() if it.cause}
    assert "no difference" in list(lines(found, tests, tests))


@given(SIDES, SIDES)
@settings(deadline=None, max_examples=25)
def test_every_difference_is_shown_in_each_format(old: Side, new: Side) -> None:
    found = compare(old, new)
    told, shown = values(found, old, new), "\n".join(lines(found, old, new))
    marked = "\n".join(markdown(found, old, new))
    for name, listed in vars(found).items():
        if name in ("overall", "still"):
            continue
        assert [each["test"] for each in told[name]] == [each.test for each in listed]
        for each in listed:
            assert f"  {each.test}" in shown
            assert f"| `{each.test}` |" in marked


def taking(seconds: dict[str, float], name: str = "time") -> Side:
    return {test: State("passed", figures={name: (it,)}) for test, it in seconds.items()}


@pytest.mark.parametrize(
    ("name", "before", "now", "more"),
    [
        ("time", 1.0, 1.6, True),
        ("time", 1.0, 1.4, False),  # less than half as much again
        ("time", 0.01, 0.05, False),  # less than 0.1 s
        ("time", 0.0, 0.2, True),
        ("memory", 1e9, 1.5e9, True),
        ("memory", 1e7, 5e7, False),
        ("GPU memory", 1e9, 1.2e9, False),
    ],
)
def test_the_rule_for_one_test(name: str, before: float, now: float, more: bool) -> None:
    found = compare(taking({"t": before}, name), taking({"t": now}, name))
    expected = [Growth("t", name, before, now)] if more else []
    assert (found.slower if name == "time" else found.heavier) == expected
    assert not found.faster
    assert not found.lighter


def test_a_machine_that_is_slower_makes_no_test_slower() -> None:
    numbers = random.Random(1)
    before = {f"t{number}": numbers.uniform(0.5, 5) for number in range(100)}
    now = {test: 2 * seconds * numbers.uniform(0.9, 1.1) for test, seconds in before.items()}
    found = compare(taking(before), taking({**now, "t7": 6 * before["t7"]}))
    assert [each.test for each in found.slower] == ["t7"]
    assert found.overall["time"] == pytest.approx(2, rel=0.05)
    assert f"overall {found.overall['time']:.2f} times the time of the old run" in list(
        lines(found, {}, {})
    )


def test_where_all_tests_vary_much_that_much_is_noise() -> None:
    numbers = random.Random(1)
    before = {f"t{number}": numbers.uniform(0.5, 5) for number in range(100)}
    now = {test: seconds * numbers.choice([0.5, 0.7, 1.4, 2]) for test, seconds in before.items()}
    assert not compare(taking(before), taking(now)).slower


def test_runs_of_one_side_that_overlap_with_the_other_are_noise() -> None:
    before = {"t": State("passed", figures={"time": (1.0, 1.1, 3.0)})}
    assert not compare(before, taking({"t": 2.9})).slower
    assert compare(before, taking({"t": 3.1})).slower


def attempt(test: str, **fields: Any) -> dict[str, Any]:
    return event("attempt", test=test, worker="gw0", start=10.0, duration=3.0, **fields)


def verdict(test: str, outcome: str, **fields: Any) -> dict[str, Any]:
    return event("verdict", test=test, worker="gw0", outcome=outcome, **fields)


def test_a_side_is_what_its_journals_say() -> None:
    wide = {"what": "setup", "label": "x", "start": 10.5, "duration": 2.0}
    other = {**wide, "start": 1.0}
    failed = [{"when": "call", "outcome": "failed", "duration": 0.0, "message": "KeyError: 1"}]
    found = side(
        history(
            [
                event("run", session="a", options={"dist": "loadgroup"}),
                event("collection", worker="gw0", tests=4, nodeids=["t@g", "u[a@b]", "v", "w"]),
                attempt("t@g", wide=[wide, other], peak_memory=5),
                verdict("t@g", "passed", attempt=2),
                attempt("u[a@b]"),
                verdict("u[a@b]", "failed", reports=failed),
                event("run", session="b"),
                attempt("v", peak_memory=7),
                verdict("v", "passed"),
                attempt("u[a@b]"),
                verdict("u[a@b]", "passed"),
            ]
        )
    )
    assert found == {
        "t": State("passed", None, True, {"time": (1.0,), "memory": (5.0,)}),
        "u[a@b]": State("failed", Cause("KeyError", "<n>", "")),
        "v": State("passed", None, False, {"time": (3.0,), "memory": (7.0,)}),
        "w": State(""),
    }
