"""How the benchmark that compares turns what tests recorded into figures and tables."""

from __future__ import annotations

import pytest

from benchmarks.compare.measures import bound, gaps, makespan
from benchmarks.compare.runs import Line, Run, WrongRunError, check
from benchmarks.compare.suites import SUITES, durations
from benchmarks.compare.table import ratios, table

EMPTY = SUITES[0]


def test_a_gap_is_from_a_crash_to_the_next_test() -> None:
    lines = [
        Line("test", 1.0, 1, True), Line("crash", 1.5, 2, True), Line("test", 1.52, 3, True),
        Line("crash", 2.0, 4, True), Line("crash", 2.25, 5, True),
    ]  # fmt: skip
    assert gaps(lines) == pytest.approx([0.02, 0.25])


def test_makespan_and_its_bound() -> None:
    lines = [Line("test", 1.0, 1, True), Line("test", 1.5, 2, True), Line("end", 3.0, 1, False)]
    assert makespan(lines) == 2.0
    assert bound([1.0, 2.0, 3.0], 2) == 3.0
    assert bound([1.0, 2.0, 2.0], 2) == 2.5


def test_the_skewed_suite_is_the_same_every_time_and_skewed() -> None:
    seconds = durations(100)
    assert seconds == durations(100)
    assert max(seconds) > 5 * sorted(seconds)[50]


FRESH = [Line("test", 1.0, pid, True) for pid in (1, 2)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (FRESH[:1], "1 of 2 tests ran"),
        ([*FRESH, FRESH[0]], "3 of 2 tests ran"),
        ([FRESH[0], FRESH[0]], "2 tests ran in 1 processes"),
        ([FRESH[0], FRESH[1]._replace(fresh=False)], "touched by another one"),
    ],
)
def test_a_run_in_which_something_is_missing_is_not_measured(
    lines: list[Line], message: str
) -> None:
    with pytest.raises(WrongRunError, match=message):
        check(Run(1.0, lines), 2, True)
    check(Run(1.0, FRESH), 2, True)
    check(Run(1.0, [FRESH[0], FRESH[0]._replace(fresh=False)]), 2, False)


def test_a_table_has_medians_and_what_is_beyond_plain() -> None:
    rounds = {
        "plain": [{"per test": 1.0, "start-up": 0.5}, {"per test": 3.0, "start-up": 0.7}],
        "fkit -n0": [{"per test": 9.0}],
    }
    assert list(table(EMPTY, 10, rounds)) == [
        "| 10 tests empty tests | ms per test | least | most | beyond plain | start-up, s |",
        "|---|---|---|---|---|---|",
        "| plain | 2.00 | 1.00 | 3.00 |  | 0.60 |",
        "| fkit -n0 | 9.00 | 9.00 | 9.00 | 7.00 |  |",
    ]


def test_ratios_are_those_of_which_everything_was_measured() -> None:
    rounds = {
        "fkit -n1": [{"per test": 5.0, "below": 60.0}],
        "xdist -n1": [{"per test": 1.0, "below": 50.0}],
        "forked": [{"per test": 9.0}],
        "plain, pytest 8.4": [{"per test": 1.0}],
    }
    assert list(ratios(rounds)) == [
        "isolation adds, in forked's: 0.50",
        "memory of worker and below, in an xdist worker's: 1.20",
    ]
