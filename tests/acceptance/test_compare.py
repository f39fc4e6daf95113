"""The benchmark that compares, as far as it goes without the peers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.compare.contenders import CONTENDERS
from benchmarks.compare.measures import Course, measure
from benchmarks.compare.suites import SUITES

_SUITES = {suite.name: suite for suite in SUITES}
_CONTENDERS = {each.name: each for each in CONTENDERS}


@pytest.mark.parametrize(
    ("suite", "contender", "figures"),
    [
        ("empty", "plain", {"per test", "start-up", "memory"}),
        ("empty", "raw fork + wait", {"per test", "start-up", "memory"}),
        ("empty", "fkit -n1", {"per test", "controller", "start-up", "memory", "below"}),
        ("modules", "fkit -n0", {"per test", "start-up"}),
        ("crashes", "fkit -n1, session", {"crash"}),
        ("skewed", "fkit -n2", {"makespan"}),
    ],
)
def test_every_figure_is_measured(
    tmp_path: Path, suite: str, contender: str, figures: set[str]
) -> None:
    tests = 60 if suite == "crashes" else 30 if suite == "skewed" else 8
    course = Course(_SUITES[suite], tmp_path, tests)
    measured = measure(course, _CONTENDERS[contender], sys.executable)
    assert set(measured) == figures
    noise = {"per test", "controller"}  # differences of two runs
    assert all(value > 0 for name, value in measured.items() if name not in noise)
