"""Every worker has its GPUs tried out while it collects, and says so if they are sick."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Callable, Mapping

import pytest
from inner import InnerRun, run_pytest, write_files
from inner_runs import started, wait_until

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

pytestmark = pytest.mark.skipif(
    not fleets.compiler() or not sys.platform.startswith("linux"),
    reason="needs a C compiler and Linux",
)

LIBRARY = "libcuda.so.1"

HANGS = {LIBRARY: fleets.Behaviour(seconds=600, stubborn=True)}

SUITE = {
    "test_it.py": """\
import os
import psutil
import pytest

WORKER = os.getpid()

@pytest.mark.parametrize("number", range(4))
def test_it(number):
    assert os.getpid() != WORKER
    below = psutil.Process(WORKER).children()
    alive = [each for each in below if each.status() != psutil.STATUS_ZOMBIE]
    # Those that read what drivers say stay.
    [keeper] = [each for each in alive if "_reader:" not in "".join(each.cmdline())]
""",
}


def _run(machine: Mapping[str, str], directory: Path, *arguments: str) -> InnerRun:
    """A run of 4 tests that pass, each in a process of its own."""
    env = {**machine, "FKIT_FLEET_LOG": str(directory / "log")}
    ended = run_pytest(write_files(directory, SUITE), "--fkit", *arguments, env=env)
    assert ended.status == 0, ended.out
    assert set(ended.outcomes.values()) == {"PASSED"}
    assert len(ended.outcomes) == 4
    return ended


def _probes(directory: Path) -> int:
    log = directory / "log"
    return log.read_text().split().count(LIBRARY) if log.exists() else 0


def _lines(ended: InnerRun) -> list[str]:
    told = (line for line in ended.lines if line.startswith(("fkit: ", "[gw")))
    return [line for line in told if "probe: " in line]


def test_healthy_gpus_are_not_mentioned(fleet: Fleet, tmp_path: Path) -> None:
    assert _lines(_run(fleet(fleets.nvidia(4)), tmp_path, "-n2")) == []
    assert _probes(tmp_path) == 2


_SKIPS = """\
import pytest

@pytest.mark.parametrize("number", range(12))
def test_it(number):
    pytest.skip(["CUDA not available", "test requires CUDA"][number % 2])
"""


def test_skips_for_the_same_reason_have_a_worker_probed_once(fleet: Fleet, tmp_path: Path) -> None:
    write_files(tmp_path, {"test_skips.py": _SKIPS})
    env = {**fleet(fleets.nvidia(2)), "FKIT_FLEET_LOG": str(tmp_path / "log")}
    options = ("--fkit", "-n2", "--fkit-gpus-per-worker=1", "--fkit-retire-after=0")
    ended = run_pytest(tmp_path, *options, env=env)
    assert ended.out.count("retrying ") == 12
    assert " 12 skipped in " in ended.lines[-1]
    # Each worker before its first test, and after the first skip for each of the two reasons.
    assert 4 <= _probes(tmp_path) <= 6


def test_a_sick_gpu_is_named_by_its_worker(fleet: Fleet, tmp_path: Path) -> None:
    gpus = fleets.nvidia(4, states={3: "corrupt"})
    [line] = _lines(_run(fleet(gpus), tmp_path, "-n2"))
    start, reason = line.split("is retired: probe: ")
    assert start == "fkit: gw1 (GPUs 2,3) "
    assert reason.startswith(f"device 1 ({gpus[3].pci}): what was written to it reads back wrong")


def test_amd(fleet: Fleet, tmp_path: Path) -> None:
    gpus = fleets.amd(4, states={0: "lost"})
    [line] = _lines(_run(fleet(gpus), tmp_path, "-n2"))
    start, reason = line.split("is retired: probe: ")
    assert start == "fkit: gw0 (GPUs 0,1) "
    assert reason == f"device 0 ({gpus[0].pci}): hipSetDevice: hipErrorInvalidDevice (101)"


def test_what_is_unknown_is_not_mentioned(fleet: Fleet, tmp_path: Path) -> None:
    gpus = fleets.nvidia(2, states={0: "full", 1: "busy"})
    assert _lines(_run(fleet(gpus), tmp_path, "-n2")) == []
    assert _probes(tmp_path) == 2


@pytest.mark.parametrize("how", ["option", "ini", "-n0"])
def test_it_can_be_off(fleet: Fleet, tmp_path: Path, how: str) -> None:
    if how == "ini":
        (tmp_path / "pytest.ini").write_text("[pytest]\nfkit_probe = off\n")
    arguments = {"option": ["--fkit-probe=off", "-n1"], "ini": ["-n1"], "-n0": ["-n0"]}[how]
    machine = fleet(fleets.nvidia(1, states={0: "sick"}))
    assert _lines(_run(machine, tmp_path, *arguments)) == []
    assert _probes(tmp_path) == 0


def test_no_gpus_no_probe(fleet: Fleet, tmp_path: Path) -> None:
    _run(fleet(fleets.nvidia(1)), tmp_path, "-n1", "--fkit-gpus=none")
    assert _probes(tmp_path) == 0


def test_a_fresh_interpreter_does_not_probe_again(fleet: Fleet, tmp_path: Path) -> None:
    machine = {**fleet(fleets.nvidia(1)), "FKIT_FLEET_LOG": str(tmp_path / "log")}
    suite = {"test_it.py": "def test_it(): pass\n", "test_too.py": "def test_too(): pass\n"}
    arguments = ["--fkit", "-n1", "--fkit-start-method=spawn"]
    ended = run_pytest(write_files(tmp_path, suite), *arguments, env=machine)
    assert set(ended.outcomes.values()) == {"PASSED"}
    assert _probes(tmp_path) == 1


def test_a_slow_probe_is_waited_for_and_does_not_count_as_a_child(
    fleet: Fleet, tmp_path: Path
) -> None:
    slow = {LIBRARY: fleets.Behaviour(seconds=4.0)}
    machine = fleet(fleets.nvidia(1, states={0: "sick"}), behaviours=slow)
    ended = _run(machine, tmp_path, "-n1")
    assert len(_lines(ended)) == 1
    # What conftest files and modules leave running keeps tests from being forked.
    assert "child process" not in ended.out
    assert "shared a process" not in ended.out


def test_wrong_words(fleet: Fleet, tmp_path: Path) -> None:
    ended = run_pytest(write_files(tmp_path, SUITE), "--fkit", "--fkit-probe=perhaps", env=fleet())
    assert ended.status == pytest.ExitCode.USAGE_ERROR
    assert "pytest-fkit: --fkit-probe=perhaps: expected on or off" in ended.err


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGINT"])
def test_an_interrupt_ends_the_wait_for_a_probe(fleet: Fleet, tmp_path: Path, how: str) -> None:
    machine = {**fleet(fleets.nvidia(1), behaviours=HANGS), "FKIT_FLEET_LOG": str(tmp_path / "log")}
    suite = {
        "test_it.py": "def test_it(): pass\n",
        "conftest.py": """\
            def pytest_collection_finish(session):
                if hasattr(session.config, "workerinput"):
                    open("collected.txt", "w").write("yes")
        """,
    }
    with started(tmp_path, suite, "--fkit", "-n1", env=machine) as inner:
        inner.await_file("collected.txt")
        inner.await_file("log")
        since = time.monotonic()
        if how == "Ctrl-C":
            os.killpg(inner.process.pid, signal.SIGINT)
        else:
            inner.process.send_signal(signal.SIGINT)
        ended = inner.wait(40)
        assert time.monotonic() - since < 20
        assert ended.status == pytest.ExitCode.INTERRUPTED
        assert "INTERNALERROR" not in ended.stdout + ended.stderr
        assert inner.await_gone(5.0) == []


def test_a_collection_error_does_not_wait_for_a_probe(fleet: Fleet, tmp_path: Path) -> None:
    machine = fleet(fleets.nvidia(1), behaviours=HANGS)
    suite = {"test_it.py": "assert 0\n"}
    with started(tmp_path, suite, "--fkit", "-n1", env=machine) as inner:
        ended = inner.wait(40)
        assert ended.seconds < 30
        assert "1 error in " in ended.stdout
        assert inner.await_gone(5.0) == []


def test_a_probe_ends_with_a_worker_that_is_killed(fleet: Fleet, tmp_path: Path) -> None:
    machine = {**fleet(fleets.nvidia(1), behaviours=HANGS), "FKIT_FLEET_LOG": str(tmp_path / "log")}
    suite = {
        "test_it.py": """\
            import os, signal, time
            while not os.path.exists("log"):
                time.sleep(0.01)
            with open("worker.txt", "w") as file:
                file.write(str(os.getpid()))
            time.sleep(1000)
        """
    }
    with started(tmp_path, suite, "--fkit", "-n1", "--max-worker-restart=0", env=machine) as inner:
        worker = int(inner.await_file("worker.txt"))
        probe = int((tmp_path / "log").read_text().split()[1])
        os.kill(worker, signal.SIGKILL)
        assert wait_until(lambda: not Path(f"/proc/{probe}/exe").exists(), 20)
