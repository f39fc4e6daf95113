"""What the footer shows, as a function of what runs."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_fkit.controller.reports.footer import (
    RunProgress,
    ShownTest,
    lines,
    rows_for,
    seconds_left,
)


@pytest.mark.parametrize(
    ("workers", "screen", "rows"),
    [(2, 24, 3), (8, 24, 8), (8, 27, 9), (64, 100, 9), (2, 9, 3), (8, 9, 3), (2, 8, 0), (1, 24, 2)],
)
def test_it_takes_a_third_of_the_screen_at_most(workers: int, screen: int, rows: int) -> None:
    assert rows_for(workers, screen) == rows


def test_the_tests_that_run_longest_come_first() -> None:
    running = [
        ShownTest("gw0", "test_a.py::test_short", 99.5),
        ShownTest("gw1 (GPUs 2,3)", "test_a.py::test_long", 1.0),
        ShownTest("gw2", "test_a.py::test_middle", 90.0),
        ShownTest("gw3", "test_a.py::test_no_place", 95.0),
    ]
    assert lines(RunProgress(50, 200, 3, 75.0), running, now=100.0, rows=3, columns=80) == [
        "[#####---------------] 50 of 200, 3 failed, about 1:15 min left",
        "1:39 min  gw1 (GPUs 2,3)  test_a.py::test_long",
        "   10 s  gw2  test_a.py::test_middle",
    ]


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        (RunProgress(0, 0, 0, None), "[--------------------] 0 of 0"),
        (RunProgress(7, 7, 0, 0.0), "[####################] 7 of 7"),
        (RunProgress(9, 7, 0, None), "[####################] 9 of 7"),
        (RunProgress(1, 7, 0, 7300.0), "[##------------------] 1 of 7, about 2:01 h left"),
    ],
)
def test_the_bar(progress: RunProgress, said: str) -> None:
    assert lines(progress, [], now=0.0, rows=2, columns=80) == [said, ""]


def _width(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in line)


@given(st.lists(st.text(max_size=200), max_size=12), st.integers(2, 9), st.integers(2, 200))
def test_nothing_leaves_its_row(nodeids: list[str], rows: int, columns: int) -> None:
    running = [ShownTest("gw0", nodeid, 0.0) for nodeid in nodeids]
    found = lines(RunProgress(1, 2, 1, 5.0), running, now=9.0, rows=rows, columns=columns)
    assert len(found) == rows
    assert all(_width(line) < columns for line in found)
    assert not any(unicodedata.category(each) == "Cc" for line in found for each in line)


def test_time_left_needs_known_durations() -> None:
    expected = {"a": 10.0, "b": 20.0, "c": None, "d": 30.0}
    assert seconds_left(expected, set(), workers=2) == 40.0
    assert seconds_left(expected, {"a", "b"}, workers=2) == 30.0
    assert seconds_left(expected, {"a", "d"}, workers=1) == 40.0
    assert seconds_left({"a": None, "b": None, "c": 1.0}, set(), workers=1) is None
    assert seconds_left({}, set(), workers=1) is None
