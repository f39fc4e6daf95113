"""What is said of tests while they run: that they are slow, and on SIGUSR1 what they do."""

from __future__ import annotations

import faulthandler
import json
import re
import signal
import sys
from pathlib import Path

import pytest
from inner import run_pytest
from inner_runs import Run, started, wait_until

from pytest_fkit.controller.reports.running import RunningTests

_SUITE = """
    import os, time
    from pathlib import Path
    import pytest

    DIRECTORY = Path(os.environ["FKIT_INNER_DIR"])

    def wait():
        while not (DIRECTORY / "go").exists():
            time.sleep(0.05)

    @pytest.fixture(scope="module")
    def wide():
        yield
        assert os.environ["PYTEST_CURRENT_TEST"]

    def test_waits(wide):
        print("said before")
        (DIRECTORY / "ready").write_text("yes")
        wait()
        os._exit(3)
"""

_OTHER_PROGRAM = """

    def test_became_another_program():
        os.execv("/bin/sh", ["sh", "-c", "while ! test -e go; do sleep 0.05; done; exit 4"])
"""


def _asked(run: Run, *awaited: str) -> str:
    """The output of a run whose test was slow, and which was asked once what it does."""
    run.await_file("ready")
    slow = wait_until(lambda: "SLOW [> " in run.output(), 30)
    assert slow, run.output()
    run.process.send_signal(signal.SIGUSR1)
    for text in awaited:
        there = wait_until(lambda text=text: text in run.output(), 30)  # type: ignore[misc]
        assert there, run.output()
    (run.directory / "go").touch()
    outcome = run.wait()
    # It went on, and the stack that was asked for is not that of its death.
    death = outcome.reports("test_waits").death
    assert death["death"] == "exit status 3"
    assert "no Python stack: a process that exits by itself" in death["text"]
    return outcome.stdout


@pytest.mark.parametrize(("workers", "worker"), [("-n2", r"gw[01]"), ("-n0", "main")])
def test_slow_tests_are_named_and_described(tmp_path: Path, workers: str, worker: str) -> None:
    suite = _SUITE + (_OTHER_PROGRAM if workers == "-n2" else "")
    options = ("--fkit", workers, "--fkit-slow=0.5", "--fkit-journal=run.jsonl")
    both = ("last line of output", "the process can't be asked")
    with started(tmp_path, {"test_r.py": suite}, *options) as run:
        out = _asked(run, *(both if workers == "-n2" else both[:1]))
    assert re.search(rf"^SLOW \[> [\d.]+ s\] {worker} test_r.py::test_waits: call$", out, re.M)
    assert re.search(
        rf"^{worker} test_r.py::test_waits: call, [\d.]+ s, pid \d+\n"
        r"  last line of output: said before\n"
        r"  test_r.py:10: in wait\n"
        r"      time.sleep\(0.05\)\n"
        r"  test_r.py:20: in test_waits\n"
        r"      wait\(\)\n"
        r"  … \d+ frames of pytest$",
        out,
        re.M,
    ), out
    events = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    slow = [each for each in events if each["event"] == "slow" and "waits" in each["test"]]
    assert {each["seconds"] for each in slow} <= {2.0**power for power in range(-1, 9)}
    (running,) = [each for each in events if each["event"] == "running" and "waits" in each["test"]]
    assert (running["phase"], running["line"]) == ("call", "said before")
    assert "in wait" in running["stacks"]


def test_who_handles_the_signal_keeps_it(pytestconfig: pytest.Config) -> None:
    def handled() -> bool:
        running = RunningTests(pytestconfig, print, None)
        running.pytest_sessionstart()
        here = signal.getsignal(signal.SIGUSR1) == running._handle
        running.restore()
        return here

    before = signal.getsignal(signal.SIGUSR1)
    try:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        assert handled()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
        faulthandler.register(signal.SIGUSR1)
        assert not handled()
        faulthandler.unregister(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        assert not handled()
    finally:
        signal.signal(signal.SIGUSR1, before)


_TITLES = """
import os
from pathlib import Path
import pytest

def title(pid):
    return Path(f"/proc/{pid}/cmdline").read_text().strip("\\0")

def test_has_a_process():
    assert title(os.getpid()) == "[pytest-fkit running] test_it.py::test_has_a_process"
    assert title(os.getppid()) == "[pytest-fkit idle]"

@pytest.fixture(scope="module")
def wide(): return os.getpid()

def test_begun_by_its_host(wide):
    assert title(os.getpid()) == "[pytest-fkit running] test_it.py::test_begun_by_its_host"

@pytest.mark.fkit(isolation="class")
class TestShared:
    def test_first(self): self.test_second("first")
    def test_second(self, name="second"):
        wanted = f"[pytest-fkit running] test_it.py::TestShared::test_{name}"
        assert title(os.getpid()) == wanted

@pytest.fixture(scope="session")
def odd(): pass

@pytest.mark.parametrize("name", ["\\ud800"])
def test_odd(odd, name): pass
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_processes_have_the_name_of_their_test(tmp_path: Path) -> None:
    pytest.importorskip("setproctitle")
    (tmp_path / "test_it.py").write_text(_TITLES)
    run = run_pytest(tmp_path, "-p", "no:cacheprovider", "--fkit", "-n1")
    assert set(run.outcomes.values()) == {"PASSED"}, run.out
    # Without workers a process has the command line that plain pytest would have.
    run = run_pytest(tmp_path, "-p", "no:cacheprovider", "--fkit", "-n0", "-k", "has_a_process")
    assert run.message("test_it.py::test_has_a_process").startswith("AssertionError: assert '/")
