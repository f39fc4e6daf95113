"""Tests that need fewer GPUs than their worker has see so many, and no more."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping

import pytest
from inner import run_pytest, write_files

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

MASKS = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "MINE")

SUITE = f"""\
import json, os
import pytest

MASKS = {MASKS!r}
def seen(): return [os.environ.get(name) for name in MASKS]
AT_IMPORT = seen()

@pytest.fixture(scope="session")
def wide(fkit_gpus):
    return [fkit_gpus, seen(), os.getpid()]

@pytest.fixture(autouse=True)
def note(request, wide):
    gpus, at_setup, holder = wide
    entry = dict(
        gpus=gpus, now=seen(), wide=at_setup, at_import=AT_IMPORT, pid=os.getpid(), holder=holder,
    )
    with open(os.environ["LOG"], "a") as log:
        log.write(json.dumps([request.node.name, entry]) + "\\n")

def test_slice(): pass
@pytest.mark.fkit_single_gpu
def test_one(): pass
@pytest.mark.fkit_single_gpu
def test_one_again(): pass
@pytest.mark.fkit_multi_gpu
def test_two(): pass
@pytest.mark.fkit(gpus=3)
def test_three(): pass
@pytest.mark.fkit(gpus=0)
def test_anywhere(): pass
def test_slice_again(): pass
"""


@dataclass(frozen=True)
class Seen:
    """What a test saw.

    :param gpus: the fixture ``fkit_gpus``.
    :param now: the variables in MASKS, in the order of MASKS.
    :param wide: the same when a session-scoped fixture was set up.
    :param at_import: the same when the module was imported.
    :param holder: pid of the process that set the fixture up.
    """

    gpus: list[str]
    now: list[str | None]
    wide: list[str | None]
    at_import: list[str | None]
    pid: int
    holder: int


def look(
    machine: Mapping[str, str], directory: Path, *arguments: str, **env: str
) -> dict[str, Seen]:
    """What the tests saw in a run, by their names."""
    write_files(directory, {"test_needs.py": SUITE, "pytest.ini": _INI})
    log = directory / "log"
    ended = run_pytest(
        directory, "--fkit", "--fkit-gpus-per-worker=3", *arguments,
        env={**machine, "LOG": str(log), **env},
    )  # fmt: skip
    assert ended.status == 0, ended.out
    seen = {name: Seen(**entry) for name, entry in map(json.loads, log.read_text().splitlines())}
    assert len(seen) == 7
    return seen


_INI = "[pytest]\nfkit_env =\n  MINE=<{gpus}>\n"

NVIDIA = {
    1: ["6", None, None, "<6>"],
    2: ["6,1", None, None, "<6,1>"],
    3: ["6,1,4", None, None, "<6,1,4>"],
}
ROCR = {
    1: ["0", "6", "0", "<6>"],
    2: ["0,1", "6,5", "0,1", "<6,5>"],
    3: ["0,1,2", "6,5,3", "0,1,2", "<6,5,3>"],
}
HIP = {
    1: ["4", "2,3,4,5,6", "4", "<6>"],
    2: ["4,3", "2,3,4,5,6", "4,3", "<6,5>"],
    3: ["4,3,1", "2,3,4,5,6", "4,3,1", "<6,5,3>"],
}
NUMBERS = {
    "test_slice": 3,
    "test_one": 1,
    "test_one_again": 1,
    "test_two": 2,
    "test_three": 3,
    "test_anywhere": 3,
    "test_slice_again": 3,
}


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_a_test_sees_as_many_as_it_needs(fleet: Fleet, tmp_path: Path, workers: str) -> None:
    seen = look(fleet(fleets.nvidia(8)), tmp_path, workers, CUDA_VISIBLE_DEVICES="6,1,4,5")
    for name, number in NUMBERS.items():
        assert seen[name].now == NVIDIA[number], name
        # A wide fixture, too: it may have opened them.
        assert seen[name].wide == NVIDIA[number], name
        assert seen[name].gpus == ["6", "1", "4"][:number], name
    assert len({each.pid for each in seen.values()}) == 7
    # Wide fixtures are set up once for each number of GPUs.
    assert len({each.holder for each in seen.values()}) == 3
    assert seen["test_one"].holder == seen["test_one_again"].holder
    assert seen["test_slice"].holder == seen["test_slice_again"].holder


@pytest.mark.parametrize(("amd_mask", "expected"), [("rocr", ROCR), ("hip", HIP)])
def test_amd(fleet: Fleet, tmp_path: Path, amd_mask: str, expected: Any) -> None:
    seen = look(
        fleet(fleets.amd(8)), tmp_path, "-n1", f"--fkit-amd-mask={amd_mask}",
        ROCR_VISIBLE_DEVICES="2,3,4,5,6", HIP_VISIBLE_DEVICES="4,3,1,0",
    )  # fmt: skip
    assert {name: each.now for name, each in seen.items()} == {
        name: expected[number] for name, number in NUMBERS.items()
    }


def test_tests_that_share_a_process_share_it_with_their_like(fleet: Fleet, tmp_path: Path) -> None:
    seen = look(
        fleet(fleets.nvidia(8)), tmp_path, "-n1", "--fkit-isolation=session",
        CUDA_VISIBLE_DEVICES="6,1,4,5",
    )  # fmt: skip
    for name, number in NUMBERS.items():
        assert seen[name].now == seen[name].wide == NVIDIA[number], name
    by_number: dict[int, set[int]] = {1: set(), 2: set(), 3: set()}
    for name, number in NUMBERS.items():
        by_number[number].add(seen[name].pid)
    assert [len(pids) for pids in by_number.values()] == [1, 1, 1]
    assert len(set().union(*by_number.values())) == 3


def test_a_fresh_interpreter_sees_them_from_its_first_import_on(
    fleet: Fleet, tmp_path: Path
) -> None:
    seen = look(
        fleet(fleets.nvidia(8)), tmp_path, "-n1", "--fkit-start-method=spawn",
        CUDA_VISIBLE_DEVICES="6,1,4,5",
    )  # fmt: skip
    for name, number in NUMBERS.items():
        assert seen[name].at_import == seen[name].now == NVIDIA[number], name


def test_who_changed_the_masks_has_his_way(fleet: Fleet, tmp_path: Path) -> None:
    conftest = """\
import os
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = "5,7"
"""
    write_files(tmp_path, {"conftest.py": conftest})
    seen = look(fleet(fleets.nvidia(8)), tmp_path, "-n1")
    assert {each.now[0] for each in seen.values()} == {"5,7"}


def test_mig_instances_are_one_each_anyway(fleet: Fleet, tmp_path: Path) -> None:
    gpus = fleets.nvidia(1, mig=[0], instances=3)
    seen = look(fleet(gpus), tmp_path, "-n1")
    assert gpus[0].mig is not None
    mask = ",".join(instance.mig_uuid for instance in gpus[0].mig)
    assert {each.now[0] for each in seen.values()} == {mask}


FAILING = """\
import os
import pytest
@pytest.mark.fkit_single_gpu
def test_fails(): assert 0
@pytest.mark.fkit_single_gpu
def test_dies(): os.abort()
def test_slice_fails(): assert 0
"""


def test_failures_and_commands_name_what_the_test_saw(fleet: Fleet, tmp_path: Path) -> None:
    write_files(tmp_path, {"test_failing.py": FAILING})
    ended = run_pytest(
        tmp_path, "--fkit", "-n1", env={**fleet(fleets.nvidia(4)), "CUDA_VISIBLE_DEVICES": "2,3"}
    )
    said = [line for line in ended.lines if line.startswith("worker gw0")]
    assert said == [
        "worker gw0, GPU 2",
        "worker gw0, GPU 2",
        "worker gw0, GPUs 2,3",
    ]
    [command] = [line for line in ended.lines if line.startswith("reproduce: ")]
    assert command.startswith("reproduce: CUDA_VISIBLE_DEVICES=2 pytest ")


SCARCE = """\
import os, unittest
import pytest

COUNT = len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))

@unittest.skipUnless(COUNT > 1, "test requires multiple GPUs")
def test_multiple(): pass
def need(number):
    reason = f"Need at least {number} GPUs to run the test."
    return pytest.mark.skipif(COUNT < number, reason=reason)
@need(3)
def test_three(): pass
@need(3)
@pytest.mark.parametrize("number", range(2))
def test_three_times(number): pass
@need(4)
def test_more_than_there_are(): pass
@pytest.mark.fkit_single_gpu
def test_asked_for_one(): pytest.skip("test requires multiple GPUs")
@pytest.mark.xfail(reason="Need at least 3 GPUs to run the test.")
def test_expected(): assert 0
def test_in_its_call(): pytest.skip("Need at least 3 CUDA devices")
"""


@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_skips_for_want_of_gpus_are_said_with_the_option(
    fleet: Fleet, tmp_path: Path, workers: str
) -> None:
    write_files(tmp_path, {"test_scarce.py": SCARCE})
    ended = run_pytest(tmp_path, "--fkit", workers, env=fleet(fleets.nvidia(3)))
    assert ended.status == 0
    begins = "for want of 3 GPUs (--fkit-gpus-per-worker=3 or --fkit-widen)"
    assert [line for line in ended.lines if "for want of" in line] == [
        f"3 tests skipped {begins}: Need at least 3 GPUs to run the test.",
        f"1 test skipped {begins}: Need at least 3 CUDA devices",
    ]
    enough = run_pytest(
        tmp_path, "--fkit", workers, "--fkit-gpus-per-worker=3", env=fleet(fleets.nvidia(3))
    )
    assert "for want of" not in enough.out
    nowhere = run_pytest(
        tmp_path, "--fkit", workers, env={**fleet(), "CUDA_VISIBLE_DEVICES": "0,1"}
    )
    assert "for want of" not in nowhere.out


ALONE = """\
import json, os
import pytest

AT_IMPORT = os.environ["CUDA_VISIBLE_DEVICES"]
COUNT = len(AT_IMPORT.split(","))

def note(name):
    with open(os.environ["LOG"], "a") as log:
        seen = os.environ["CUDA_VISIBLE_DEVICES"], AT_IMPORT, os.environ["FKIT_GPU_IDS"]
        log.write(json.dumps([name, os.getpid(), *seen]) + "\\n")

@pytest.fixture(scope="module")
def wide():
    note("set up")
    yield
    note("torn down")

def test_slice(wide): note("slice")
@pytest.mark.distributed(num_gpus=4)
@pytest.mark.skipif(COUNT < 4, reason="Need at least 4 GPUs to run the test.")
def test_four(wide): note("four")
@pytest.mark.fkit_multi_gpu(3)
def test_dies(): os.abort()
@pytest.mark.fkit(gpus=5)
def test_five(): note("five")
def test_slice_again(wide): note("slice again")
"""


def test_without_workers_a_test_gets_the_gpus_that_nobody_has(fleet: Fleet, tmp_path: Path) -> None:
    write_files(tmp_path, {"test_alone.py": ALONE})
    ended = run_pytest(
        tmp_path, "--fkit", "-n0",
        env={
            **fleet(fleets.nvidia(8)),
            "LOG": str(tmp_path / "log"),
            "CUDA_VISIBLE_DEVICES": "7,3,5,1",
        },
    )  # fmt: skip
    log = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    two, four = ["7,3"] * 3, ["7,3,5,1"] * 3
    assert [(name, seen) for name, _, *seen in log] == [
        ("set up", two),
        ("slice", two),
        # Nothing of the worker is left beside it.
        ("torn down", two),
        ("set up", four),
        ("four", four),
        ("torn down", four),
        ("set up", two),
        ("slice again", two),
        ("torn down", two),
    ]
    prefix = "test_alone.py::test_"
    assert ended.outcomes.items() >= {
        (f"{prefix}slice", "PASSED"),
        (f"{prefix}four", "PASSED"),
        (f"{prefix}dies", "ERROR"),
        (f"{prefix}slice_again", "PASSED"),
    }
    assert "worker main, GPUs 7,3,5" in ended.lines
    [command] = [line for line in ended.lines if line.startswith("reproduce: ")]
    assert command.startswith("reproduce: CUDA_VISIBLE_DEVICES=7,3,5 pytest ")
    [skipped] = [line for line in ended.lines if line.startswith("SKIPPED")]
    assert skipped.endswith("needs 5 GPUs; this run has 4")
