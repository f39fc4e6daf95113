"""Workers that share GPUs: tests run together that fit into the memory, on a fleet that is none."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Callable, Mapping

import pytest
from inner import run_pytest, write_files

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

# 79.65 GiB each. Who runs is a file; with whom, a line of the log.
_RUNS = """\
import contextlib, os, time
from pathlib import Path
import pytest

GPUS = os.environ["FKIT_GPU_IDS"].split(",")

@contextlib.contextmanager
def running(name, *others, gpus=()):
    # Beside these it has to be; who has waited in vain is alone.
    own = [Path(f"runs-{gpu}-{name}") for gpu in gpus or GPUS]
    for each in own:
        each.touch()
    deadline = time.monotonic() + 60
    while not all(list(Path().glob(f"r*-{GPUS[0]}-{other}")) for other in others):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    beside = {path.name for gpu in gpus or GPUS for path in Path().glob(f"runs-{gpu}-*")}
    with open("log", "a") as log:
        names = sorted({each.split("-")[2] for each in beside})
        log.write(" ".join([",".join(gpus or GPUS) + ":", *names]) + "\\n")
    yield
    for each in own:
        each.rename(each.name.replace("runs", "ran"))
"""

_MEMORY = (
    _RUNS
    + """\

@pytest.mark.fkit(gpu_memory="50G")
def test_large():
    with running("large", "medium"):
        pass

@pytest.mark.fkit(gpu_memory="20G")
def test_medium():
    with running("medium", "large"):
        pass

@pytest.mark.fkit(gpu_memory="45G")
@pytest.mark.parametrize("number", range(4))
def test_half(number):
    with running(f"half{number}"):
        time.sleep(0.02)

@pytest.mark.parametrize("number", range(2))
def test_plain(number):
    with running(f"plain{number}", f"plain{1 - number}"):
        pass

@pytest.mark.fkit(gpus=2)
@pytest.mark.parametrize("number", range(2))
def test_gang(number):
    gpus = os.environ["FKIT_GPU_IDS"].split(",")
    with running(f"gang{number}", gpus=gpus):
        assert sorted(gpus) == ["0", "1"]
"""
)


_TESTS = [
    "large", "medium", *(f"half[{number}]" for number in range(4)), "plain[0]", "plain[1]",
]  # fmt: skip


def _log(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines()


def test_tests_that_fit_run_together_and_others_do_not(fleet: Fleet, tmp_path: Path) -> None:
    # Tests that take long are sent one by one, so that none waits for one behind it.
    durations = json.dumps({f"test_it.py::test_{name}": 5.0 for name in _TESTS})
    write_files(tmp_path, {"test_it.py": _MEMORY, ".test_durations": durations})
    ended = run_pytest(
        tmp_path, "--fkit", "-n2", "--fkit-gpu-slots=2", "-k", "not gang",
        env=fleet(fleets.nvidia(1)),
    )  # fmt: skip
    assert Counter(ended.outcomes.values()) == {"PASSED": 8}, ended.out
    assert "1 NVIDIA GPU (H100 80GB HBM3, 80 GiB), 1 per worker, 2 slots each: gw0 0 | gw1 0;" in (
        ended.out
    )
    log = _log(tmp_path)
    for names in ("large medium", "plain0 plain1"):
        assert any(names in line for line in log), log
    assert not any(re.search("half.*half|half.*(large|plain)|plain.*(large|half)", n) for n in log)


def test_a_gang_has_all_slots_of_its_slices(fleet: Fleet, tmp_path: Path) -> None:
    write_files(tmp_path, {"test_it.py": _MEMORY})
    ended = run_pytest(
        tmp_path, "--fkit", "-nauto", "--fkit-gpu-slots=2", "--fkit-gpus-per-worker=1",
        "-k", "gang or half", env=fleet(fleets.nvidia(2)),
    )  # fmt: skip
    assert Counter(ended.outcomes.values()) == {"PASSED": 6}, ended.out
    assert "1 per worker, 2 slots each: gw0 0 | gw1 1 | gw2 0 | gw3 1;" in ended.out
    gangs = [line for line in _log(tmp_path) if "gang" in line]
    assert [line.split()[1:] for line in gangs] == [["gang0"], ["gang1"]]


_SICK = """\
import os, time
import pytest
import fleet_torch

@pytest.mark.parametrize("number", range(30))
def test_it(number):
    with open("log", "a") as log:
        log.write(f"{os.environ['FKIT_GPU_IDS']}\\n")
    time.sleep(0.005)
    assert fleet_torch.launch(number, 0) == number
"""

_BREAKS = """\
import os
from pathlib import Path
import fleet_state

if os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
    fleet_state.set_state(Path(os.environ["FKIT_FLEET_ROOT"]), 1, "lost")
"""


def test_a_sick_gpu_is_sick_for_all_who_share_it(fleet: Fleet, tmp_path: Path) -> None:
    write_files(tmp_path, {"test_it.py": _SICK, "conftest.py": _BREAKS})
    machine = fleets.with_framework(fleet(fleets.nvidia(2)))
    ended = run_pytest(
        tmp_path, "--fkit", "-nauto", "--fkit-gpu-slots=2", "--fkit-gpus-per-worker=1",
        "--fkit-probe=off", "--fkit-retire-after=2", env=machine,
    )  # fmt: skip
    assert Counter(ended.outcomes.values()) == {"PASSED": 30}, ended.out
    begun = Counter(_log(tmp_path))["1"]
    assert begun <= 3, ended.out  # what the other one had begun by then comes on top
    if begun >= 2:
        first, other = "gw1 (GPU 1)", "gw3 (GPU 1)"
        if f"fkit: {other} is retired: 2 GPU errors" in ended.out:
            first, other = other, first
        assert f"fkit: {first} is retired: 2 GPU errors in a row" in ended.out
        assert f"fkit: {other} is retired: it has the same GPUs as {first[:3]}" in ended.out


_SCARCE = """\
import os, time
from pathlib import Path
import pytest

class OutOfMemoryError(RuntimeError):
    __module__ = "torch"

def test_finds_no_memory():
    if not Path("again").exists():
        Path("again").touch()
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

def test_has_more_than_its_share():
    deadline = time.monotonic() + 60
    while "not begun" not in Path("journal").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    Path(os.environ["FKIT_FLEET_ROOT"], "used").write_text(f"{os.environ['GPU']} 0 0\\n")

@pytest.mark.fkit(gpu_memory="39G")
def test_is_not_begun_beside_it():
    pass
"""


def test_what_found_no_memory_beside_others_is_tried_again_alone(
    fleet: Fleet, tmp_path: Path
) -> None:
    gpus = fleets.nvidia(1)
    machine = fleet(gpus)
    Path(machine["FKIT_FLEET_ROOT"], "used").write_text(f"{gpus[0].uuid} {60 << 30} 0\n")
    write_files(tmp_path, {"test_it.py": _SCARCE})
    ended = run_pytest(
        tmp_path, "--fkit", "-n2", "--fkit-gpu-slots=2", "--fkit-gpu-memory-timeout=0.1",
        "--fkit-journal=journal", env={**machine, "GPU": gpus[0].uuid},
    )  # fmt: skip
    assert Counter(ended.outcomes.values()) == {"PASSED": 3}, ended.out
    for name, reason in (
        ("test_finds_no_memory", "CUDA out of memory"),
        ("test_is_not_begun_beside_it", "not begun: needs 39 GiB of GPU memory"),
    ):
        line = rf"^retrying test_it.py::{name} on gw. \(GPU .\); attempt 1 on .*: {reason}"
        assert re.search(line, ended.out, re.M)
    assert "2 tests passed after" in ended.out or "PASSED after 2 attempts" in ended.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "--fkit-gpu-slots=2 -n5 --fkit-gpus-per-worker=1",
            "5 workers are too many for 2 slots in each of 2 slices of GPUs; -n 4 or -n auto",
        ),
        ("--fkit-gpu-slots=2 -n2 --dist=each", "with --dist=each every worker runs every test"),
    ],
)
def test_what_can_not_be_meant(fleet: Fleet, tmp_path: Path, arguments: str, said: str) -> None:
    write_files(tmp_path, {"test_it.py": "def test_it(): pass\n"})
    ended = run_pytest(tmp_path, "--fkit", *arguments.split(), env=fleet(fleets.nvidia(2)))
    assert ended.status == pytest.ExitCode.USAGE_ERROR
    assert said in ended.out + ended.err
