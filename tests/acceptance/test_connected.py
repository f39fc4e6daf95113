"""Tests that hand state on by way of a plugin, or of a conftest.py that says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from inner import run_pytest, write_files

CONFTEST = """
import builtins, os, pytest

builtins.SEEN = []

def pytest_configure(config):
    config.addinivalue_line("markers", "needs(scope): what an earlier test left")
    config.addinivalue_line("markers", "incremental: steps")

def pytest_fkit_isolation(item):
    mark = item.get_closest_marker("needs")
    return None if mark is None else mark.args[0]

failed = set()

def pytest_runtest_makereport(item, call):
    if "incremental" in item.keywords and call.excinfo is not None:
        failed.add(item.parent)

def pytest_runtest_setup(item):
    if item.parent in failed:
        pytest.xfail("an earlier step failed")
"""

TESTS = """
import os, pytest

def test_before(): assert not SEEN

@pytest.mark.needs("session")
def test_first():
    SEEN.append("first")
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")

def test_between():
    assert not SEEN
    SEEN.append("between")

@pytest.mark.incremental
class TestSteps:
    def test_1(self): pass
    def test_2(self): assert 0
    def test_3(self): pass
"""

MORE = """
import os, pytest

@pytest.mark.needs("module")
def test_dies():
    os._exit(3)

@pytest.mark.needs("module")
def test_has_another_process(): assert not SEEN

@pytest.mark.needs("session")
def test_last():
    assert SEEN == ["first"]
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")

@pytest.mark.needs("nothing")
def test_wrong(): pass
"""

SUITE = {"conftest.py": CONFTEST, "test_a.py": TESTS, "test_b.py": MORE}


@pytest.mark.parametrize("mode", ["-n0", "-n2"])
def test_connected_tests_share_a_process_on_one_worker(tmp_path: Path, mode: str) -> None:
    run = run_pytest(write_files(tmp_path, SUITE), "--fkit", mode, "-W", "error")
    # pytest 7 says in another form which test it is.
    assert {nodeid: each for nodeid, each in run.outcomes.items() if each != "XFAIL"} == {
        "test_a.py::test_before": "PASSED",
        "test_a.py::test_first": "PASSED",
        "test_a.py::test_between": "PASSED",
        "test_a.py::TestSteps::test_1": "PASSED",
        "test_a.py::TestSteps::test_2": "FAILED",
        "test_b.py::test_dies": "ERROR",
        "test_b.py::test_has_another_process": "PASSED",
        "test_b.py::test_last": "PASSED",
        "test_b.py::test_wrong": "ERROR",
    }, run.out
    assert re.search(
        r"^XFAIL .*test_a\.py::TestSteps::test_3( - |\n  reason: )an earlier step failed$",
        run.out,
        re.MULTILINE,
    ), run.out
    assert "pytest_fkit_isolation answered 'nothing'" in run.out
    assert "3 tests shared a process, because of the mark incremental" in run.lines
    because = "2 tests shared a process, because of pytest_fkit_isolation"
    assert f"{because}, 'session'" in run.lines
    assert len(set((tmp_path / "pids").read_text().split())) == 1


def test_in_a_fresh_interpreter(tmp_path: Path) -> None:
    thread = (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    run = run_pytest(
        write_files(tmp_path, {**SUITE, "test_a.py": thread + TESTS, "test_b.py": ""}),
        "--fkit", "-n0", "-k", "TestSteps or test_between",
    )  # fmt: skip
    assert "1 failed, 2 passed, 2 deselected, 1 xfailed in " in run.out
