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

# Plain pytest passes no report on, and shows these verdicts.
ODD_HOOK = """
    import pytest

    class Ambiguous:  # as an array of NumPy is
        def __ne__(self, other): raise ValueError
        __eq__ = __ne__

    class Exits:
        def __repr__(self): raise SystemExit(0)
        __reduce__ = __str__ = __repr__

    own = []
    own.append(own)

    CHANGES = {
        "a number": {"longrepr": 42},
        "names of parts": {"longrepr": "reprcrash reprtraceback"},
        "exits": {"longrepr": Exits(), "more": Exits()},
        "ambiguous": {"more": Ambiguous()},
        "recursive": {"more": own},
        "no duration": {"duration": "long"},
        "no keywords": {"keywords": None},
        "no parts": {"entries": None},
        "foreign parts": {"entries": [1, None]},
        "sections": {"sections": [("a", b"b"), (1, 2), None, ("c", "d")]},
        "no data": {},
    }

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(item, call):
        report = (yield).get_result()
        if call.when == "call" and hasattr(item, "callspec"):
            changes = dict(CHANGES[item.callspec.params["change"]])
            if "entries" in changes:
                report.longrepr.reprtraceback.reprentries = changes.pop("entries")
            vars(report).update(changes)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_to_serializable(report):
        return {} if "no data" in report.nodeid else None
"""

ODD = """
    import pytest
    from conftest import CHANGES

    @pytest.mark.parametrize("change", CHANGES)
    def test_changed(change): assert 1 == 2

    def test_after(): pass
"""

IN_THE_WAY = """
    import builtins, contextlib, os
    from unittest import mock
    import pluggy
    import pytest

    @pytest.fixture(scope="module")
    def no_descriptor_blocks():
        for number in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError):
                os.set_blocking(number, False)

    @pytest.mark.parametrize("number", range(3))
    def test_waits(no_descriptor_blocks, number): pass

    def broken(*arguments): raise ValueError

    def test_function():
        builtins.next = broken

    def test_mock():
        builtins.next = mock.Mock(side_effect=ValueError)

    def test_method():
        pluggy.HookCaller.__call__ = broken

    def test_after(): pass

    @pytest.fixture(scope="module")
    def breaks_pytest():
        builtins.next = broken

    def test_1(breaks_pytest): pass

    def test_2(breaks_pytest): pass

    def test_in_another_process(): pass
"""


@pytest.mark.parametrize("mode", ["-n0", "-n1"])
def test_whatever_a_hook_makes_of_a_report_its_verdict_stands(suite: MakeSuite, mode: str) -> None:
    run = suite(conftest=ODD_HOOK, test_it=ODD).run("--fkit", mode)
    *changed, after = run.outcomes.values()
    assert changed == 11 * [["setup passed", "call failed", "teardown passed"]], run.text
    assert after == ["setup passed", "call passed", "teardown passed"]
    assert run.status == 1


def test_a_hook_that_exits_leaves_the_run_its_status(suite: MakeSuite) -> None:
    """Also for reports that come after the end of the run, when the first one has ended it."""
    hook = """
        def pytest_report_teststatus(report):
            if "test_fails" in report.nodeid: raise SystemExit(0)
    """
    run = suite(conftest=hook, test_it="def test_fails(): assert 1 == 2").run("--fkit", "-n1")
    assert run.status == 3, run.text


def test_what_processes_of_pytest_need_is_theirs_again(suite: MakeSuite) -> None:
    """A test that replaces what pluggy calls does not stop the run."""
    run = suite(test_it=IN_THE_WAY).run("--fkit", "-n0")
    outcomes = ["failed" in " ".join(phases) for phases in run.outcomes.values()]
    assert outcomes == 3 * [False] + 3 * [True] + [False] + 2 * [True] + [False], run.text
    assert len(run.outcomes["test_it.py::test_in_another_process"]) == 3


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
