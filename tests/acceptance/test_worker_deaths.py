"""Workers that are killed themselves: no test is lost, none runs again, none is left out."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from inner import run_pytest, write_files

# A fresh interpreter would take itself for the worker.
_FKIT = ("--fkit", "--fkit-start-method=fork")

_SUITE = """\
import os, signal, time
from pathlib import Path
import pytest

WORKER = os.getpid()  # which imports this module

def kill_worker():
    os.kill(WORKER, signal.SIGKILL)
    time.sleep(60)

@pytest.mark.parametrize("number", range({number}))
@pytest.mark.xdist_group({group!r})
def test_it(number):
    with open(os.environ["LOG"], "a") as log:
        log.write(f"{{Path(__file__).name}} {{number}}\\n")
    if number in {killers}:
        kill_worker()
"""


def _suite(directory: Path, number: int, killers: tuple[int, ...], *names: str) -> Path:
    files = {
        f"{name}.py": _SUITE.format(number=number, killers=killers, group=name) for name in names
    }
    return write_files(directory, files)


def _nodeids(number: int, *names: str) -> set[str]:
    return {f"{name}.py::test_it[{each}]" for name in names for each in range(number)}


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("workers", ["-n1", "-n2"])
@pytest.mark.parametrize("mode", ["loadscope", "loadfile", "loadgroup"])
def test_groups_go_on_after_the_test_that_killed_their_worker(
    tmp_path: Path, mode: str, workers: str
) -> None:
    suite = _suite(tmp_path, 4, (1, 3), "test_a", "test_b")
    log = tmp_path / "log"
    ended = run_pytest(suite, *_FKIT, workers, "--dist", mode, env={"LOG": str(log)}, timeout=100)
    outcomes = {nodeid.partition("@")[0]: each for nodeid, each in ended.outcomes.items()}
    assert set(outcomes) == _nodeids(4, "test_a", "test_b"), ended.out
    killed = {nodeid for nodeid, outcome in outcomes.items() if outcome == "ERROR"}
    assert killed == {f"test_{name}.py::test_it[{number}]" for name in "ab" for number in (1, 3)}
    ran = log.read_text().splitlines()
    assert len(ran) == len(set(ran)) == 8
    assert ended.status == 1


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("mode", ["load", "loadfile", "worksteal"])
@pytest.mark.parametrize("restarts", [0, 1])
def test_what_nobody_is_left_to_run_is_an_error_that_says_why(
    tmp_path: Path, mode: str, restarts: int
) -> None:
    suite = _suite(tmp_path, 12, tuple(range(12)), "test_a")
    ended = run_pytest(
        suite,
        *(*_FKIT, "-n1", "--dist", mode, f"--max-worker-restart={restarts}"),
        "--junitxml=junit.xml",
        env={"LOG": str(tmp_path / "log")},
    )
    assert set(ended.outcomes) == _nodeids(12, "test_a")
    assert set(ended.outcomes.values()) == {"ERROR"}
    reason = (
        "not run: worker gw0 crashed and worker restarting disabled"
        if restarts == 0
        else "not run: maximum crashed workers reached: 1"
    )
    messages = [message for _, _, message in ended.reported]
    assert sum(each.startswith(reason) for each in messages) == 11 - restarts, ended.out
    cases = list(ElementTree.parse(tmp_path / "junit.xml").iter("testcase"))
    assert len(cases) == 12
    assert all(case.find("error") is not None for case in cases)
    assert ended.status == 1


def test_who_resumes_the_run_runs_what_nobody_was_left_to_run(tmp_path: Path) -> None:
    suite = _suite(tmp_path, 4, (1,), "test_a")
    environ = {"LOG": str(tmp_path / "log")}
    options = (*_FKIT, "-n1", "--max-worker-restart=0")
    first = run_pytest(suite, *options, "--fkit-journal=run.jsonl", env=environ)
    assert first.out.count("- not run: ") == 2
    again = run_pytest(suite, *options, "--fkit-resume=run.jsonl", env=environ)
    ran = {nodeid for nodeid, outcome in again.outcomes.items() if outcome == "PASSED"}
    assert ran == {"test_a.py::test_it[2]", "test_a.py::test_it[3]"}, again.out
    assert "3 passed, 1 error" in again.out


_LISTENER = """\
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    report.description, report.extras = f"about {item.name}", [item.name]
    if report.when == "call":
        report.rare = 1
    return report

def pytest_runtest_logreport(report):
    said = [report.nodeid, report.when, report.description, report.extras, hasattr(report, "rare")]
    with open("heard", "a") as file:
        print(*said, file=file)
"""


def test_what_plugins_add_to_every_report_is_on_those_that_no_worker_made(tmp_path: Path) -> None:
    suite = _suite(tmp_path, 3, (1,), "test_a")
    write_files(tmp_path, {"conftest.py": _LISTENER})
    options = (*_FKIT, "-n1", "--max-worker-restart=0", "--rootdir=.")
    ended = run_pytest(suite, *options, env={"LOG": str(tmp_path / "log")})
    assert "INTERNALERROR" not in ended.out
    assert "1 passed, 2 errors" in ended.out
    heard = next(tmp_path.rglob("heard")).read_text().splitlines()
    assert "test_a.py::test_it[0] call about test_it[0] ['test_it[0]'] True" in heard
    assert [line for line in heard if "test_it[0]" not in line] == [
        "test_a.py::test_it[1] ???  [] False",
        "test_a.py::test_it[2] setup  [] False",
        "test_a.py::test_it[2] teardown  [] False",
    ]


_JUDGE = """\
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    report.description = item.name
    return report

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_logreport(report):
    report.description.upper()
    yield

@pytest.hookimpl(wrapper=True)
def pytest_report_teststatus(report):
    status = yield
    report.description.upper()
    return status

def pytest_terminal_summary(terminalreporter):
    reports = [each for found in terminalreporter.stats.values() for each in found]
    print("kept", sorted(each.description for each in reports if hasattr(each, "when")))
"""


def test_a_plugin_that_misses_what_it_adds_does_not_end_the_run(tmp_path: Path) -> None:
    suite = _suite(tmp_path, 2, (0,), "test_a")
    plain = "def pytest_runtest_logreport(report): report.description.upper()\n"
    write_files(tmp_path, {"conftest.py": _JUDGE, "plain.py": plain})
    ended = run_pytest(
        suite, *_FKIT, "-n1", "-p", "plain", "--rootdir=.", "-Werror",
        env={"LOG": str(tmp_path / "log"), "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert ended.status == 1, ended.out
    assert "1 passed, 3 warnings, 1 error" in ended.out
    assert "kept ['', 'test_it[1]', 'test_it[1]', 'test_it[1]']" in ended.out
    missed = "has not heard of a report on test_a.py::test_it[0] (???), which pytest-fkit made: "
    error = "AttributeError: 'TestReport' object has no attribute 'description'"
    for plugin in ("plain", "conftest.py"):
        assert f"pytest-fkit: {plugin} {missed}{error}" in ended.out


def test_a_worker_that_does_not_answer_is_replaced(tmp_path: Path) -> None:
    suite = _suite(tmp_path, 12, (5,), "test_a")
    file = suite / "test_a.py"
    file.write_text(file.read_text().replace("signal.SIGKILL", "signal.SIGSTOP"))
    options = ("-n2", "--fkit-worker-timeout=3")
    ended = run_pytest(suite, *_FKIT, *options, env={"LOG": str(tmp_path / "log")}, timeout=100)
    assert set(ended.outcomes) == _nodeids(12, "test_a"), ended.out
    failed = {nodeid for nodeid, outcome in ended.outcomes.items() if outcome != "PASSED"}
    assert failed == {"test_a.py::test_it[5]"}
    assert "has not answered for 3 s, and is killed" in ended.out
    assert ended.status == 1


def test_the_death_of_a_worker_counts_for_maxfail(tmp_path: Path) -> None:
    suite = _suite(tmp_path, 30, (2,), "test_a")
    ended = run_pytest(suite, *_FKIT, "-n1", "-x", env={"LOG": str(tmp_path / "log")})
    assert "stopping after 1 failures" in ended.out
    assert set(ended.outcomes) == _nodeids(3, "test_a")
    assert ended.outcomes["test_a.py::test_it[2]"] == "ERROR"
    assert ended.out.count("no stacks: nobody looks at workers") == 1
    assert "not run" not in ended.out
    assert ended.status == 1  # as in plain pytest


def test_a_scheduler_of_the_suites_own_is_used(tmp_path: Path) -> None:
    suite = _suite(tmp_path, 4, (), "test_a", "test_b")
    conftest = """\
from xdist.scheduler import LoadFileScheduling

class OwnScheduling(LoadFileScheduling):
    pass

def pytest_xdist_make_scheduler(config, log):
    return OwnScheduling(config, log)
"""
    write_files(suite, {"conftest.py": conftest})
    arguments = (*_FKIT, "-n2", "--dist", "loadfile", "-v")
    ended = run_pytest(suite, *arguments, env={"LOG": str(tmp_path / "log")})
    assert "scheduling tests via OwnScheduling" in ended.lines
    assert set(ended.outcomes.values()) == {"PASSED"}


def test_a_refused_collection_is_reported_once(tmp_path: Path) -> None:
    source = """\
import os, pytest
@pytest.mark.parametrize("worker", [os.environ["PYTEST_XDIST_WORKER"]])
def test_it(worker): pass
"""
    ended = run_pytest(write_files(tmp_path, {"test_a.py": source}), *_FKIT, "-n2")
    assert ended.out.count("\nDifferent tests were collected between gw") == 1
    assert "not run" not in ended.out
    assert ended.status == 1
