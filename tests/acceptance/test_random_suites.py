"""Suites that nobody thought of: fixtures, marks, hooks and failures, put together at random."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.random_suites import compare


@pytest.mark.parametrize("arguments", ["-n0", "-n1", "-n0 --fkit-isolation=session"])
@pytest.mark.parametrize("seed", [102, 117, 130])
def test_random_suites_are_as_in_plain_pytest(tmp_path: Path, seed: int, arguments: str) -> None:
    if pytest.version_tuple < (9,):
        pytest.skip("the suites have subtests, which pytest has from version 9 on")
    differ = compare(seed, tmp_path, arguments.split())
    if "-n1" in arguments:  # xdist counts a test and its subtest
        differ = [line for line in differ if "--maxfail" not in line]
    assert "\n".join(differ[1:]) == ""
