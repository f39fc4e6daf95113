"""What is said about GPUs: in the header, in reports, in the command that runs a test again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Callable, Mapping

import pytest
from gpu_runs import run_on
from inner import InnerRun, run_pytest, write_files

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]

FAILURES = {
    "test_failures.py": """\
import json, os, signal
import pytest

WORKER = os.getpid()

@pytest.fixture
def broken(): raise RuntimeError("broken")

@pytest.fixture
def breaks():
    yield
    raise RuntimeError("breaks")

def test_passes(): pass
def test_fails(): assert 0
def test_setup(broken): pass
def test_teardown(breaks): pass
def test_dies():
    found = {name: text for name, text in os.environ.items() if name.endswith("_VISIBLE_DEVICES")}
    with open(os.environ["LOG"], "a") as log:
        log.write(json.dumps([found, os.environ["FKIT_GPU_IDS"]]) + "\\n")
    os.abort()
@pytest.mark.xfail
def test_expected(): assert 0
def test_kills_worker(): os.kill(WORKER, signal.SIGKILL)
"""
}
SECTION = re.compile(r"^worker (\w+), GPUs? ([\d,]+)$", re.MULTILINE)


def _sections(ended: InnerRun) -> list[tuple[str, str]]:
    return SECTION.findall(ended.out)


@pytest.mark.parametrize("arguments", ["-n1 --fkit-gpus-per-worker=3", "-n0"])
def test_every_failure_and_error_names_worker_and_gpus(
    fleet: Fleet, tmp_path: Path, arguments: str
) -> None:
    directory = write_files(tmp_path, FAILURES)
    selected = ["-k", "not kills"] if arguments == "-n0" else []
    ended = run_pytest(
        directory, "--fkit", *arguments.split(), *selected,
        env={**fleet(fleets.nvidia(4)), "LOG": str(tmp_path / "log")},
    )  # fmt: skip
    name, ids, number = ("gw0", "0,1,2", 5) if "-n1" in arguments else ("main", "0,1", 4)
    assert _sections(ended) == [(name, ids)] * number
    [death] = [line for line in ended.lines if "::test_dies  SIGABRT  " in re.sub(" +", "  ", line)]
    assert death.endswith(f"  {name} (GPUs {ids})" if name == "gw0" else f"(GPUs {ids})")
    titles = [line for line in ended.lines if re.fullmatch(r"-+ pytest-fkit -+", line)]
    assert len(titles) == number


def test_without_gpus_nothing_is_added(fleet: Fleet, tmp_path: Path) -> None:
    directory = write_files(tmp_path, FAILURES)
    env = {**fleet(), "LOG": str(tmp_path / "log")}
    ended = run_pytest(directory, "--fkit", "-n1", env=env)
    assert not _sections(ended)
    assert "fkit: 1 worker, isolation: function, timeout: 600 s" in ended.lines
    assert [line for line in ended.lines if line.startswith("reproduce: ")] == [
        "reproduce: pytest -rA --fkit test_failures.py::test_dies"
    ]


@pytest.mark.parametrize(
    ("gpus", "inherited"),
    [
        (fleets.nvidia(8), {}),
        (fleets.amd(8), {"ROCR_VISIBLE_DEVICES": "7,6,5,4", "HIP_VISIBLE_DEVICES": "3,2,1,0"}),
    ],
)
def test_the_command_that_runs_a_test_again_runs_it_on_the_same_gpus(
    fleet: Fleet, tmp_path: Path, gpus: list[fleets.Gpu], inherited: Mapping[str, str]
) -> None:
    directory = write_files(tmp_path, FAILURES)
    log = tmp_path / "log"
    env = {**fleet(gpus), **inherited, "LOG": str(log), "FKIT_GPUS": "4,5,6,7"}
    # gw1 gets the test that dies.
    ended = run_pytest(
        directory, "--fkit", "-n2", "--dist=loadgroup", "-k", "dies or fails", env=env
    )
    [command] = [line.partition(": ")[2] for line in ended.lines if line.startswith("reproduce: ")]
    again = subprocess.run(
        command.replace(" pytest ", f" {sys.executable} -m pytest ", 1),
        shell=True,
        cwd=directory,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    first, second = (json.loads(line) for line in log.read_text().splitlines())
    assert first == second, again.stdout
    assert "1 worker" in again.stdout


def test_the_header_names_every_workers_gpus_and_vv_how_they_were_found(
    fleet: Fleet, tmp_path: Path
) -> None:
    ended = run_on(fleet(fleets.amd(8)), tmp_path, "-n", "auto", "-vv", workers=4)
    *trail, line = ended.header
    assert line == (
        "fkit: 4 workers, 8 AMD GPUs (MI300X, 192 GiB), 2 per worker: gw0 0,1 | gw1 2,3 | gw2 4,5 "
        "| gw3 6,7; isolation: function, timeout: 600 s"
    )
    assert any("8 found" in each for each in trail)


@pytest.mark.parametrize("arguments", ["-q", "-vv"])
def test_notices_are_always_shown_once(fleet: Fleet, tmp_path: Path, arguments: str) -> None:
    machine = fleet(
        fleets.nvidia(2),
        without=["libnvidia-ml.so.1"],
        behaviours={"nvidia-smi": fleets.Behaviour(prints="rubbish")},
    )
    ended = run_on(machine, tmp_path, "-n1", *arguments.split())
    notices = [line for line in ended.inner.lines if line.startswith("fkit: nvidia: nvidia-smi")]
    assert len(notices) == 1
    # The next way was tried.
    assert ended.seen["gw0"].gpus == ["0", "1"]


def test_a_tool_that_hangs_costs_no_more_than_the_limit(fleet: Fleet, tmp_path: Path) -> None:
    machine = fleet(
        fleets.nvidia(2),
        without=["libnvidia-ml.so.1"],
        behaviours={"nvidia-smi": fleets.Behaviour(seconds=300, stubborn=True)},
    )
    ended = run_on(machine, tmp_path, "-n1", "--fkit-gpus-timeout=4")
    assert ended.seen["gw0"].gpus == ["0", "1"]
    assert ended.header[0].startswith("fkit: nvidia: nvidia-smi")


def test_mixed_models_are_counted(fleet: Fleet, tmp_path: Path) -> None:
    gpus = fleets.nvidia(3)
    gpus[1] = replace(gpus[1], name="NVIDIA L4", memory=24 << 30)
    ended = run_pytest(
        write_files(tmp_path, {"test_x.py": "def test_x(): pass\n"}), "--fkit", "--collect-only",
        env=fleet(gpus),
    )  # fmt: skip
    [line] = [line for line in ended.lines if line.startswith("fkit: ")]
    assert "3 NVIDIA GPUs (2 x H100 80GB HBM3, 80 GiB; 1 x L4, 24 GiB), 2 per worker" in line
