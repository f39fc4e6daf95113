"""Tests that share a process are ordered together; each has its own clock and its own verdict."""

from __future__ import annotations

from pathlib import Path

import pytest
from inner import run_pytest, write_files
from recorded_runs import Run, new_suite

_SUITE = """
import os, signal, threading, time
import pytest

@pytest.fixture(autouse=True)
def note(request):
    with open("ran", "a") as file:
        file.write(request.node.name + "\\n")

@pytest.mark.parametrize("number", range(40))
def test_before(number):
    time.sleep(0.05)

{body}

@pytest.mark.parametrize("number", range(10))
def test_after(number):
    pass
"""

_PASSED = ["setup passed", "call passed", "teardown passed"]
_SHARED = ("--fkit", "--fkit-isolation=session")


def _check_the_others(run: Run) -> None:
    names = [f"test_before[{number}]" for number in range(40)]
    names += [f"test_after[{number}]" for number in range(10)]
    assert {name: run.outcomes(name) for name in names} == dict.fromkeys(names, _PASSED)
    assert sorted(set(run.ran("ran"))) == sorted(run.ran("ran"))  # each was run once


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_the_clock_is_that_of_one_test(tmp_path: Path, workers: str) -> None:
    suite = new_suite(tmp_path, test_it=_SUITE.format(body="def test_hangs(): time.sleep(60)"))
    run = Run(suite, *_SHARED, workers, "--fkit-timeout=1")
    _check_the_others(run)
    (line,) = run.summary("test_hangs")
    assert "timed out after 1 s at test_it.py:" in line
    assert 1.0 <= run.bad("test_hangs").duration < 10.0


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_killed_keeper_takes_no_verdicts_along(tmp_path: Path, workers: str) -> None:
    body = """
def test_kills():
    print("goes")
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
"""
    run = Run(new_suite(tmp_path, test_it=_SUITE.format(body=body)), *_SHARED, workers)
    _check_the_others(run)
    assert run.outcomes("test_kills") == ["setup passed", "call failed", "teardown passed"]
    report = run.bad("test_kills")
    assert "its keeper process was ended by SIGKILL" in report.text
    assert report.captured["Captured stdout call"] == "goes\n"


def test_a_killed_keeper_takes_none_along_where_the_controller_is_slow(tmp_path: Path) -> None:
    # Between two orders the worker does not know what follows, and has the host tear down when it
    # does. What the host says then counts among what it wrote.
    slow = """
from pytest_fkit.worker.tests.sources import Dispatched
from pytest_fkit.worker.tests.batches import Pace
take = Dispatched.take
def unaware(self, most):
    taken = take(self, most)
    return taken and taken._replace(following=None)
Dispatched.take = unaware
Pace.took = lambda self, number, seconds: setattr(self, "most", 3)
"""
    module = """
import os, pytest, signal, time
@pytest.fixture(scope="module")
def wide():
    yield
    print("over")
"""
    first = "@pytest.mark.parametrize('number', range(4))\ndef test_first(wide, number): pass"
    second = """
def test_passes(): pass
def test_skips(): pytest.skip()
def test_kills():
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
"""
    suite = new_suite(tmp_path, test_1=slow + module + first, test_2=module + second)
    run = Run(suite, *_SHARED, "-n1")
    assert run.outcomes("test_passes") == ["setup passed", "call passed", "teardown passed"]
    assert run.outcomes("test_skips") == ["setup passed", "call skipped", "teardown passed"]
    assert run.outcomes("test_kills") == ["setup passed", "call failed", "teardown passed"]


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_what_is_ordered_ahead_runs_once_whatever_happens_before_it(
    tmp_path: Path, workers: str
) -> None:
    """While tests of one order run, the next ones are ordered: too early, if something happens."""
    body = """
@pytest.mark.parametrize("number", range(600))
def test_quick(number, request):
    with open("ran.txt", "a") as file:
        print(number, request.session.testsfailed, file=file)
    if number == 150:
        time.sleep(0.5)  # other tests of its order are not begun
    if number == 300:
        os._exit(3)
    assert number % 100 != 99
"""
    suite = new_suite(tmp_path, test_it=f"import os, pytest, time\n{body}")
    run = Run(suite, *_SHARED, workers)
    lines = [line.split() for line in (suite / "ran.txt").read_text().splitlines()]
    assert [int(number) for number, _ in lines] == list(range(600))
    failed = [number // 100 + (number > 300) for number in range(600)]
    assert [int(failures) for _, failures in lines] == failed
    bad = {each.nodeid for each in run.reports if each.outcome == "failed"}
    numbers = (99, 199, 299, 300, 399, 499, 599)
    assert bad == {f"test_it.py::test_quick[{number}]" for number in numbers}
    assert len({each.nodeid for each in run.reports if each.when == "teardown"}) == 600


def test_a_bomb_costs_the_test_that_runs_when_it_goes_off(tmp_path: Path) -> None:
    body = """
def test_leaves_a_bomb():
    threading.Timer(0.3, os.abort).start()

@pytest.mark.parametrize("number", range(20))
def test_meanwhile(number):
    time.sleep(0.1)
"""
    run = Run(new_suite(tmp_path, test_it=_SUITE.format(body=body)), *_SHARED, "-n1")
    _check_the_others(run)
    meanwhile = [run.outcomes(f"test_meanwhile[{number}]") for number in range(20)]
    assert sum("failed" in outcome for outcomes in meanwhile for outcome in outcomes) == 1
    assert all(len(outcomes) == 3 for outcomes in meanwhile)


def test_a_session_fixture_that_is_set_up_again_is_in_the_junit_file_once(tmp_path: Path) -> None:
    suite = """\
import os, pytest
@pytest.fixture(scope="session", autouse=True)
def wide(record_testsuite_property):
    record_testsuite_property("wide", 1)
def test_dies(): os._exit(3)
def test_passes(): pass
"""
    arguments = ("--fkit", "-n1", "--fkit-isolation=session", "--junitxml=junit.xml")
    ended = run_pytest(write_files(tmp_path, {"test_a.py": suite}), *arguments)
    assert sorted(ended.outcomes.values()) == ["ERROR", "PASSED"], ended.out
    assert (tmp_path / "junit.xml").read_text().count('name="wide"') == 1
