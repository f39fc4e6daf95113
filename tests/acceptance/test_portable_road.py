"""The same promises without pidfd, subreaper, PDEATHSIG, memfd and /proc, taken by force."""

from __future__ import annotations

from pathlib import Path

import pytest
from inner_runs import Outcome, kill, run, started

_PORTABLE = {"FKIT_PORTABLE": "1"}

_SUITE = """
    import os, signal, subprocess, sys, time
    from pathlib import Path
    import psutil
    import pytest

    DIRECTORY = Path(os.environ["FKIT_INNER_DIR"])
    SLEEP = "import time; time.sleep(1000)"

    @pytest.fixture(scope="session")
    def wide():
        program = subprocess.Popen([sys.executable, "-c", SLEEP, "fixture-server"])
        yield program
        program.kill()
        program.wait()

    def test_passes(wide):
        assert psutil.pid_exists(wide.pid)

    def test_crashes(wide):
        print("said before")
        os.abort()

    def test_exits():
        os._exit(0)

    @pytest.mark.fkit(timeout=1)
    def test_hangs():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.run([sys.executable, "-c", SLEEP])

    @pytest.mark.fkit(timeout=1)
    def test_stops():
        os.kill(os.getpid(), signal.SIGSTOP)

    def test_leaves_a_program():
        subprocess.Popen([sys.executable, "-c", SLEEP, "left-behind"])

    def test_leaves_an_orphan_in_a_group_of_its_own():
        if os.fork() == 0:
            os.setpgrp()
            if os.fork() == 0:
                os.execv(sys.executable, [sys.executable, "-c", SLEEP, "left-orphan"])
            os._exit(0)
        os.wait()

    def test_kills_its_host():
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)

    @pytest.mark.fkit(memory_limit="50M")
    def test_takes_too_much():
        taken = b"x" * (200 << 20)
        time.sleep(1000)

    def test_last(wide):
        assert psutil.pid_exists(wide.pid)
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    directory = tmp_path_factory.mktemp("portable")
    arguments = ("--fkit", "-n1", "--fkit-timeout=20")
    return run(directory, {"test_p.py": _SUITE}, *arguments, env=_PORTABLE)


@pytest.mark.parametrize(
    ("name", "headline"),
    [
        ("test_crashes", "SIGABRT at test_p.py:"),
        ("test_exits", "exit status 0"),
        ("test_hangs", "timed out after 1 s at test_p.py:"),
        ("test_stops", "timed out after 1 s at test_p.py:"),
        ("test_kills_its_host", "lost: its host process was ended by SIGKILL"),
        ("test_takes_too_much", "memory limit 50 MiB exceeded"),
    ],
)
def test_deaths_are_reported(outcome: Outcome, name: str, headline: str) -> None:
    assert outcome.reports(name).death["death"].startswith(headline)


@pytest.mark.parametrize("name", ["test_passes", "test_leaves_a_program", "test_last"])
def test_others_pass(outcome: Outcome, name: str) -> None:
    assert outcome.reports(name).outcome == "passed"


def test_left_processes_of_the_keepers_session_are_named_and_ended(outcome: Outcome) -> None:
    (line,) = outcome.reports("test_leaves_a_program").reports[-1]["leftovers"]
    assert "left-behind" in line
    name = "test_leaves_an_orphan_in_a_group_of_its_own"
    (line,) = outcome.reports(name).reports[-1]["leftovers"]
    assert "left-orphan" in line


_WAITS = """
    import os, signal, subprocess, sys, time
    from pathlib import Path

    DIRECTORY = Path(os.environ["FKIT_INNER_DIR"])

    def test_waits():
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (DIRECTORY / "ready.txt").write_text("ready")
        time.sleep(1000)

    def test_next():
        pass
"""


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_nothing_outlives_a_killed_controller(tmp_path: Path, workers: str) -> None:
    with started(tmp_path, {"test_w.py": _WAITS}, "--fkit", workers, env=_PORTABLE) as inner:
        inner.await_file("ready.txt")
        kill(inner.process.pid)
        assert inner.await_gone(2.0) == []


def test_killed_worker_is_replaced(tmp_path: Path) -> None:
    with started(tmp_path, {"test_w.py": _WAITS}, "--fkit", "-n1", env=_PORTABLE) as inner:
        inner.await_file("ready.txt")
        (worker,) = [p for p in inner.alive() if p.ppid() == inner.process.pid]
        worker.kill()
        outcome = inner.wait()
        assert inner.await_gone(2.0) == []
    assert outcome.reports("test_waits").death["death"].startswith("lost: worker gw0 died")
    assert outcome.reports("test_next").outcome == "passed"
