"""What stops a run stops it as in plain pytest: message, status, teardown."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded_runs import Run, new_suite

_SUITE = """
import os
import pytest

def note(text):
    with open("noted", "a") as file:
        file.write(text + "\\n")

@pytest.fixture(scope="session", autouse=True)
def wide():
    yield
    note("torn down")

def test_before():
    pass

{stop}

def test_after():
    note("ran on")
"""

# What a plugin that gathers something in workers does.
_GATHERS = """
def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["gathered"] = 5

def pytest_testnodedown(node):
    with open("gathered", "a") as file:
        file.write(f"{node.workeroutput['gathered']}\\n")
"""

# What stops it, and what plain pytest makes of that: exit status and message.
_STOPS: dict[str, tuple[str, int, str]] = {
    "keyboard interrupt": (
        "def test_stops(): raise KeyboardInterrupt",
        2,
        "KeyboardInterrupt",
    ),
    "exit": (
        "def test_stops(): pytest.exit('enough', returncode=7)",
        7,
        "_pytest.outcomes.Exit: enough",
    ),
    "exit in wide fixture": (
        """
@pytest.fixture(scope='module')
def stops(): pytest.exit('enough', returncode=7)
def test_stops(stops): pass
""",
        7,
        "_pytest.outcomes.Exit: enough",
    ),
    "shouldstop": (
        "def test_stops(request): request.session.shouldstop = 'stop here'",
        2,
        "Interrupted: stop here",
    ),
    "shouldfail": (
        "def test_stops(request): request.session.shouldfail = 'fail here'",
        1,
        "fail here",
    ),
    "-x": ("def test_stops(): assert False", 1, "stopping after 1 failures"),
    "--maxfail=2": (
        "def test_dies(): os.abort()\n\ndef test_stops(): os._exit(0)",
        1,
        "stopping after 2 failures",
    ),
}


def _message(run: Run) -> str:
    (line,) = [line for line in run.lines if line.startswith("!!!")]
    return line.strip("! ")


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("isolation", ["function", "session"])
@pytest.mark.parametrize("workers", ["-n0", "-n1"])
@pytest.mark.parametrize("how", _STOPS)
def test_run_stops_as_plain_pytest_does(
    tmp_path: Path, how: str, workers: str, isolation: str
) -> None:
    stop, status, message = _STOPS[how]
    suite = new_suite(tmp_path, gathers=_GATHERS, test_it=_SUITE.format(stop=stop))
    options = [how] if how.startswith("-") else []
    isolated = f"--fkit-isolation={isolation}"
    run = Run(suite, "--fkit", workers, isolated, "-p", "gathers", *options)
    assert (run.status, _message(run)) == (status, message)
    # Two tests die: a process that they share takes the fixture along.
    dead = (how, isolation) == ("--maxfail=2", "session")
    assert run.ran("noted") == ([] if dead else ["torn down"])
    if workers != "-n0" and not options:  # by an option the controller may stop first
        assert run.ran("gathered") == ["5"]
    assert run.of("test_after") == []
    assert run.outcomes("test_before") == ["setup passed", "call passed", "teardown passed"]
    if how == "keyboard interrupt":
        line = 1 + _SUITE.split("{stop}")[0].count("\n")
        assert f"{suite}/test_it.py:{line}: KeyboardInterrupt" in run.lines
    if how.startswith(("-", "should")):
        assert [report.when for report in run.of("test_stops")] == ["setup", "call", "teardown"]


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_death_in_the_teardown_after_a_stop_is_reported(tmp_path: Path, workers: str) -> None:
    text = _SUITE.replace('note("torn down")', "os.abort()")
    suite = new_suite(tmp_path, test_it=text.format(stop="def test_stops(): assert False"))
    run = Run(suite, "--fkit", workers, "-x")
    assert run.outcomes("test_stops") == ["setup passed", "call failed", "teardown failed"]
    errors = [line for line in run.summary("test_stops") if line.startswith("ERROR")]
    assert len(errors) == 1
    assert "SIGABRT while tearing down wide fixtures" in errors[0]
    assert run.of("test_after") == []


_HOOK = """
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    if item.name == "test_after":
        raise ValueError("of the suite")
    yield
"""


def test_an_error_in_a_hook_in_a_worker_stops_the_run(tmp_path: Path) -> None:
    """Where it is the last test's, xdist ends with 0."""
    suite = new_suite(tmp_path, its__conftest=_HOOK, its__test_it=_SUITE.format(stop=""))
    run = Run(suite, "--fkit", "-n1")
    message = "_pytest.outcomes.Exit: a hook failed in a worker, see INTERNALERROR above"
    assert (run.status, _message(run)) == (3, message)
    assert any("ValueError: of the suite" in line for line in run.lines)
    assert run.of("test_after") == []


_BREAKS = """
import builtins, sys

def replaced(*arguments):
    raise MemoryError

def test_stops(monkeypatch, pytestconfig):
    {breaks}
    print("to be found", file=sys.stderr)
"""


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("isolation", ["function", "session"])
@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_pytest_failing_in_a_process_is_an_error_of_the_test_that_broke_it(
    tmp_path: Path, workers: str, isolation: str
) -> None:
    """Unlike an error in a hook of the suite: what the test did to its process made it fail."""
    lost = "lost: pytest itself failed in it, see its stderr"
    replaced = "monkeypatch.setattr(pytest.TestReport, 'from_item_and_call', {})".format
    ways = {
        "report": (replaced("None"), lost, "TypeError: "),
        # of which each level of pluggy has need
        "pluggy": ("builtins.reversed = builtins.isinstance = None", lost, "TypeError: "),
        "config": ("pytestconfig.hook = None", lost, "AttributeError: "),
        "memory": (replaced("replaced"), "leaves too little memory", "MemoryError"),
    }
    suite = new_suite(
        tmp_path,
        **{
            f"test_{what}": _SUITE.format(stop=_BREAKS.format(breaks=breaks))
            for what, (breaks, _, _) in ways.items()
        },
    )
    run = Run(suite, "--fkit", workers, f"--fkit-isolation={isolation}", "-rA")
    assert run.status == 1
    for what, (_, reason, raised) in ways.items():
        name = f"test_{what}.py::test_stops"
        (report,) = [each for each in run.reports if each.nodeid == name and each.text]
        assert (report.when, report.outcome) == ("call", "failed")
        assert reason in report.text
        stderr = report.captured["Captured stderr call"]
        printed = "" if what == "config" else "to be found\n"  # there the call was reported
        assert stderr.startswith(f"{printed}Traceback (most recent call last):\n")
        assert any(line.startswith(raised) for line in run.lines)
    assert run.ran("noted").count("ran on") == 4
    assert sum(report.outcome == "passed" and report.when == "call" for report in run.reports) == 9


def test_stop_with_two_workers(tmp_path: Path) -> None:
    suite = new_suite(tmp_path, test_it=_SUITE.format(stop=_STOPS["exit"][0]))
    run = Run(suite, "--fkit", "-n2")
    assert (run.status, _message(run)) == (7, "_pytest.outcomes.Exit: enough")
    assert set(run.ran("noted")) <= {"torn down", "ran on"}
