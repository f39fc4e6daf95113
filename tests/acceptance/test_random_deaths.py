"""Many tests that die in all kinds of ways beside healthy ones: each gets its right verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.suites import DEADLY, run, write_deadly


@pytest.mark.parametrize("isolation", ["function", "session"])
def test_every_test_gets_its_one_right_verdict_and_no_process_is_left(
    tmp_path: Path, isolation: str
) -> None:
    suite = write_deadly(
        tmp_path / "suite", tests=200, deaths=len(DEADLY), seed=20, shared=isolation == "session"
    )
    result = run(suite.directory, "--fkit", "-n2", f"--fkit-isolation={isolation}", limit=120)
    assert suite.wrong(result) == []
    assert result.left == []
    assert result.status == 1, result.output


def test_a_wrong_verdict_is_noticed(tmp_path: Path) -> None:
    # The two functions that the test above trusts in.
    suite = write_deadly(tmp_path / "suite", tests=3, deaths=0, seed=1)
    result = run(
        suite.directory, "-p", "no:fkit", "-p", "no:xdist", "--deselect", "test_000.py::test_00001"
    )
    (line,) = suite.wrong(result)
    assert line.startswith("test_000.py::test_00001 ")
