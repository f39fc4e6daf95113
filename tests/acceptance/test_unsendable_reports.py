"""Tests that get in the way of their own reports."""

from __future__ import annotations

import pytest
from comparing import MakeSuite

LIMITED = """
    import logging, resource

    def test_soft_limit(tmp_path):
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        logging.warning("logged")
        (tmp_path / "file").write_text("x")
"""

HARD = """
    import resource

    def test_hard_limit(tmp_path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    def test_after(): pass
"""

CLOSES = """
    import os

    def test_closes(): os.closerange(3, 5000)

    def test_after(): pass
"""


@pytest.mark.parametrize("mode", ["-n0", "-n1"])
def test_a_soft_limit_on_file_sizes_is_the_tests_own(suite: MakeSuite, mode: str) -> None:
    # Plain pytest itself can't go on: its output goes to a file here.
    run = suite(test_it=LIMITED).run("--fkit", mode)
    assert run.outcomes["test_it.py::test_soft_limit"] == [
        "setup passed", "call failed", "teardown passed",
    ]  # fmt: skip
    assert "1 failed" in run.text
    assert "File too large" in run.text


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("isolation", ["function", "session"])
@pytest.mark.parametrize("mode", ["-n0", "-n1"])
@pytest.mark.parametrize(
    ("source", "why"),
    [(HARD, "its hard limit on the size of files"), (CLOSES, "it closed the descriptor")],
)
def test_a_test_that_cant_report_is_an_error_that_says_why(
    suite: MakeSuite, source: str, why: str, mode: str, isolation: str
) -> None:
    run = suite(test_it=source).run("--fkit", mode, f"--fkit-isolation={isolation}")
    first, second = run.outcomes.values()
    assert [phase for phase in first if phase.endswith("failed")], run.text
    assert why in run.text
    assert second == ["setup passed", "call passed", "teardown passed"]
