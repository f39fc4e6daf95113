"""How many tests begin on GPUs that are sick: as many as it takes to see it, and not one more."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Callable, Mapping

import pytest
from inner import environment, run_pytest, write_files

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

_FKIT = ("--fkit", "--fkit-gpus-per-worker=1", "--fkit-probe=off")

# After GPUs were distributed, and before the worker imports anything else: its own is sick.
_BREAKS = """\
import os
from pathlib import Path
import fleet_state

worker = os.environ.get("PYTEST_XDIST_WORKER")
if worker in os.environ["BREAKS_IN"].split():
    fleet_state.set_state(Path(os.environ["FKIT_FLEET_ROOT"]), int(worker[2:]), "lost")
"""

_SUITE = """\
import os, time
import pytest
import fleet_torch

def note(name):
    with open("log", "a") as log:
        log.write(f"{name} {os.environ['FKIT_GPU_IDS']}\\n")

@pytest.fixture(scope="module")
def model():
    yield 1

@pytest.fixture
def touched():
    yield
    fleet_torch.launch(1, 0)

@pytest.mark.parametrize("number", range(20))
def test_it(number):
    note(f"it-{number}")
    time.sleep(0.005)
    assert fleet_torch.launch(number, 0) == number

@pytest.mark.parametrize("number", range(10))
def test_with_a_wide_fixture(model, number):
    note(f"wide-{number}")
    assert fleet_torch.launch(number, 0) == number

@pytest.mark.parametrize("number", range(10))
def test_ends_badly(touched, number):
    note(f"end-{number}")
"""


def _env(fleet: Fleet, number: int, breaks_in: str) -> dict[str, str]:
    return {**fleets.with_framework(fleet(fleets.nvidia(number))), "BREAKS_IN": breaks_in}


def _begun(tmp_path: Path) -> dict[str, list[str]]:
    """By GPU, the tests that began there."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (tmp_path / "log").read_text().splitlines():
        name, gpu = line.split()
        found[gpu].append(name)
    return found


@pytest.mark.parametrize("isolation", ["function", "session"])
def test_not_one_more_test_begins_on_a_sick_gpu(
    fleet: Fleet, tmp_path: Path, isolation: str
) -> None:
    write_files(tmp_path, {"test_a.py": _SUITE, "conftest.py": _BREAKS})
    env = _env(fleet, 3, "gw1")
    ended = run_pytest(tmp_path, *_FKIT, "-n3", f"--fkit-isolation={isolation}", env=env)
    assert Counter(ended.outcomes.values()) == {"PASSED": 40}, ended.out
    assert ended.status == 0
    begun = len(_begun(tmp_path)["1"])
    assert begun <= 3, ended.out
    if begun == 3:
        assert ended.out.count("fkit: gw1 (GPU 1) is retired: 3 GPU errors in a row") == 1


_BROKEN = """\
import pytest
import fleet_torch

@pytest.mark.parametrize("number", range(9))
def test_it(number):
    raise fleet_torch.AcceleratorError("CUDA error: unspecified launch failure", 719)
"""


def test_workers_that_wait_for_each_other_do_not_wait_for_ever(
    fleet: Fleet, tmp_path: Path
) -> None:
    write_files(tmp_path, {"test_a.py": _BROKEN, "conftest.py": _BREAKS})
    ended = run_pytest(tmp_path, *_FKIT, "-n2", env=_env(fleet, 2, ""))
    assert Counter(ended.outcomes.values()) == {"FAILED": 9}, ended.out
    assert "retired" not in ended.out


_HELD = """\
import os, signal, time
from pathlib import Path
import pytest
import fleet_torch

CONTROLLER, WORKER = os.getppid(), os.getpid()

def wait_for(kind, number):
    deadline = time.monotonic() + 60
    while Path("journal").read_text().count(f'"{kind}"') < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)

def numbers(what):
    return {path.name.split("-")[1] for path in Path().glob(f"{what}-*")}

@pytest.mark.parametrize("number", range(12))
def test_it(number):
    if os.environ["FKIT_GPU_IDS"] == "1":
        Path(f"began-{number}").touch()
        with open("sick", "a") as file:
            file.write(f"{WORKER}\\n")
        fleet_torch.launch(number, 0)
    elif not Path("acted").exists():
        Path("acted").touch()
        # Not before the other worker holds, as its last test was not tried elsewhere.
        wait_for("gpu_error", 3)
        if os.environ["ACTS"] == "interrupt":
            os.kill(CONTROLLER, signal.SIGINT)
            time.sleep(60)
        elif os.environ["ACTS"] == "kill":
            os.kill(CONTROLLER, signal.SIGKILL)
            time.sleep(60)
        else:
            os.kill(int(Path("sick").read_text().split()[-1]), signal.SIGKILL)
    elif os.environ["ACTS"] == "replace":
        if numbers("began") <= numbers("ran"):
            wait_for("retired", 1)
        Path(f"ran-{number}").touch()
"""


def _run_held(fleet: Fleet, tmp_path: Path, acts: str) -> tuple[int, str]:
    write_files(tmp_path, {"test_a.py": _HELD, "conftest.py": _BREAKS})
    env = environment({**_env(fleet, 2, "gw1"), "ACTS": acts, "COLUMNS": "200"})
    command = [sys.executable, "-m", "pytest", *_FKIT, "-n2", "--fkit-journal=journal"]
    with (tmp_path / "out").open("w") as out:
        ended = subprocess.run(command, cwd=tmp_path, env=env, stdout=out, check=False, timeout=100)
    return ended.returncode, (tmp_path / "out").read_text()


def test_an_interrupt_ends_a_run_in_which_a_worker_holds(fleet: Fleet, tmp_path: Path) -> None:
    status, out = _run_held(fleet, tmp_path, "interrupt")
    assert status == 2, out
    assert len(list(tmp_path.glob("began-*"))) == 3
    assert "no other attempt: the run ended before it" in out


def test_who_holds_ends_when_the_controller_is_killed(fleet: Fleet, tmp_path: Path) -> None:
    status, out = _run_held(fleet, tmp_path, "kill")
    assert status == -signal.SIGKILL, out
    worker = int((tmp_path / "sick").read_text().split()[-1])
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(list(tmp_path.glob("began-*"))) == 3


def test_who_replaces_a_worker_that_held_begins_nothing_either(
    fleet: Fleet, tmp_path: Path
) -> None:
    status, out = _run_held(fleet, tmp_path, "replace")
    assert "replacing crashed worker gw1" in out, out
    assert len(list(tmp_path.glob("began-*"))) == 3
    assert "is retired: 3 GPU errors in a row" in out
    assert status == 0, out
