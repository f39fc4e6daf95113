"""Suites that ignore SIGCHLD, block it, or handle it.

The kernel tells nobody how a child of a process ended that ignores it; one that blocks it is not
woken; a handler in a process that has children of ours would hear of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from inner import run_pytest, write_files

_IGNORE = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
_BLOCK = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"

_TESTS = """
import os, signal, subprocess, sys
import pytest

@pytest.fixture(scope="module")
def wide():
    FIXTURE
    yield
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN

def test_aborts(wide):
    os.abort()

def test_exits(wide):
    os._exit(7)

def test_is_killed(wide):
    os.kill(os.getpid(), signal.SIGKILL)

def test_sees_it_as_it_is(wide):
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert BLOCKED == (signal.SIGCHLD in blocked) == (signal.SIGTERM in blocked)
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    assert process.wait() == 0  # what subprocess says where the kernel forgot

def test_passes(wide):
    pass
"""


@pytest.mark.in_turn(3)
@pytest.mark.parametrize(
    "arguments",
    [
        ("-n0",),
        ("-n1",),
        ("-n1", "--fkit-isolation=module"),
        ("-n1", "--fkit-start-method=spawn", "--fkit-isolation=function"),
        ("-n1", "--fkit-top=3"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("where", ["conftest", "module", "fixture"])
def test_a_death_says_its_signal(tmp_path: Path, where: str, arguments: tuple[str, ...]) -> None:
    tests = _TESTS.replace("FIXTURE", _IGNORE if where == "fixture" else "")
    tests = f"BLOCKED = {where == 'conftest'}\n{tests}"
    files = {
        "conftest.py": _BLOCK + _IGNORE if where == "conftest" else "",
        "test_it.py": (_IGNORE if where == "module" else "") + tests,
    }
    run = run_pytest(write_files(tmp_path, files), "--fkit", *arguments)
    told = {nodeid.split("::")[1]: message for _, nodeid, message in run.reported}
    assert told.pop("test_aborts", "").startswith("SIGABRT at "), run.out
    assert told == {
        "test_exits": "exit status 7",
        "test_is_killed": "SIGKILL",
        "test_sees_it_as_it_is": "",
        "test_passes": "",
    }, run.out


def test_an_import_that_ends_the_process_says_so(tmp_path: Path) -> None:
    files = {
        "conftest.py": _IGNORE,
        "test_kill.py": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
        "test_zz.py": "def test_passes(): pass\n",
    }
    run = run_pytest(write_files(tmp_path, files), "--fkit", "-n1")
    assert run.outcomes == {"test_kill.py": "ERROR", "test_zz.py::test_passes": "PASSED"}, run.out
    assert "SIGKILL, importing test_kill.py" in run.out


_HANDLES = """
import os, signal, subprocess
import pytest

heard, raises = [], [True]

def hear(number, frame):
    heard.append(number)
    with open("heard", "a") as file:
        file.write("once\\n")
    if raises:
        raise ValueError("heard")

signal.signal(signal.SIGCHLD, hear)

@pytest.fixture(scope="module")
def wide():
    yield

def test_passes(wide):
    pass

def test_aborts(wide):
    os.abort()

@pytest.fixture(scope="class")
def server(wide):
    raises.clear()
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    assert process.wait() == -signal.SIGKILL
    assert len(heard) == 1
    raises.append(True)

class TestServer:
    def test_ends_it(self, server):
        os.kill(server.pid, signal.SIGKILL)

    def test_goes_on(self, server):
        pass

def test_hears_of_its_own(wide):
    with pytest.raises(ValueError, match="heard"):
        subprocess.Popen(["true"]).wait()
"""


def test_a_handler_hears_of_the_suites_own_processes_alone(tmp_path: Path) -> None:
    run = run_pytest(write_files(tmp_path, {"test_it.py": _HANDLES}), "--fkit", "-n0")
    failed = [nodeid for nodeid, outcome in run.outcomes.items() if outcome != "PASSED"]
    assert failed == ["test_it.py::test_aborts"], run.out
    assert len(run.outcomes) == 5
    assert (tmp_path / "heard").read_text().split() == ["once"] * 2, run.out
