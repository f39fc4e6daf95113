"""Memory of GPUs as their driver counts it, on machines that do not exist."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator, Mapping

import pytest
from inner import run_pytest, write_files
from inner_runs import started, wait_until

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

pytestmark = [
    pytest.mark.skipif(not fleets.compiler(), reason="needs a C compiler"),
    pytest.mark.skipif(sys.version_info < (3, 9), reason="every test is waited for there"),
]

# "late" is what a driver has not freed of processes that are gone, see nvml.c. What has waited for
# a process may have had a GPU open in it, as an engine of vLLM has.
SUITE = """\
import os, signal, subprocess
from pathlib import Path
import pytest

ROOT = Path(os.environ["FKIT_FLEET_ROOT"])
UUID = os.environ["GPU"]

def looks():
    found = ROOT / "late-looks"
    return len(found.read_bytes()) if found.exists() else 0

def runs_a_program():
    subprocess.run(["true"], check=True)

def leave(gib, looks=1_000_000):
    (ROOT / "late-looks").write_text("")
    (ROOT / "late").write_text(f"{UUID} {gib << 30} {looks}\\n")
    runs_a_program()

"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[int]:
    """The pid of a process that has a GPU open, as CUDA has."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia-uvm").touch()
    code = "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "dev/nvidia-uvm")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def run(fleet: Fleet, directory: Path, suite: str, *arguments: str, holder: int = 0) -> str:
    gpus = fleets.nvidia(1)
    write_files(directory, {"test_it.py": SUITE + suite})
    env = {**fleet(gpus), "GPU": gpus[0].uuid, "HOLDER": str(holder)}
    ended = run_pytest(directory, "--fkit", *arguments, env=env)
    return ended.out + ended.err


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_memory_that_comes_back_late_is_waited_for(
    fleet: Fleet, tmp_path: Path, workers: str
) -> None:
    suite = """\
def test_first():
    leave(40, 5)

def test_second():
    assert looks() > 5  # somebody has looked until it was free
    (ROOT / "late-looks").write_text("")

def test_third():
    assert looks() == 0  # the second one had no GPU open
"""
    text = run(fleet, tmp_path, suite, workers)
    assert "3 passed" in text, text
    assert "not given back" not in text


def test_memory_that_does_not_come_back_is_named(fleet: Fleet, tmp_path: Path, holder: int) -> None:
    suite = """\
def test_leaks():
    leave(40)

def test_after_it():
    runs_a_program()

def test_of_which_somebody_else_takes_memory():
    (ROOT / "used").write_text(f"{UUID} {5 << 30} 0\\n")
    (ROOT / "processes").write_text(f"{UUID} {os.environ['HOLDER']} {5 << 30}\\n")
    runs_a_program()

def test_dies():
    leave(60)
    os.kill(os.getpid(), signal.SIGKILL)

def test_last():
    leave(70)
"""
    text = run(fleet, tmp_path, suite, "-n1", "--fkit-gpu-memory-timeout=0.2", holder=holder)
    assert "4 passed, 1 error" in text, text
    assert "3 tests left GPU memory that was not given back:" in text
    for name, gib in (("leaks", 40), ("dies", 20), ("last", 10)):
        line = f"  test_it.py::test_{name}  GPU 0: {gib} GiB more than before the test, held by no "
        assert line + "process that is seen here, 0." in text, text
    assert "GPU memory not given back:\n  GPU 0: 20 GiB" in text


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_an_interrupt_ends_the_wait(fleet: Fleet, tmp_path: Path, workers: str) -> None:
    gpus = fleets.nvidia(1)
    machine = fleet(gpus)
    looks = Path(machine["FKIT_FLEET_ROOT"], "late-looks")
    suite = SUITE + "def test_leaks():\n    leave(40)\n\ndef test_not_run():\n    pass\n"
    env = {**machine, "GPU": gpus[0].uuid}
    with started(tmp_path, {"test_it.py": suite}, "--fkit", workers, env=env) as inner:
        assert wait_until(lambda: looks.exists() and looks.stat().st_size > 3, 60.0)
        os.killpg(inner.process.pid, signal.SIGINT)
        outcome = inner.wait()
        assert outcome.status == 2, outcome.stdout
        assert not inner.await_gone(2.0)
        assert "test_not_run" not in outcome.stdout
