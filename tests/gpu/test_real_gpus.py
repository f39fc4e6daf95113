"""The scenarios of tests/acceptance/test_gpu_*.py on real GPUs, with PyTorch."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Mapping

import pytest

from pytest_fkit.gpu.devices import Fleet
from pytest_fkit.gpu.vendors.detection import detect, visible

torch = pytest.importorskip("torch")

SUITE = """\
import json, os, signal
from pathlib import Path
import pytest, torch

WORKER = os.getpid()

@pytest.mark.parametrize("number", range(6))
def test_it(number, fkit_gpus, fkit_worker):
    total = [
        float(torch.ones(1000, device=f"cuda:{each}").sum())
        for each in range(torch.cuda.device_count())
    ]
    names = [
        str(torch.cuda.get_device_properties(each).uuid)
        for each in range(torch.cuda.device_count())
    ]
    name = os.environ.get("PYTEST_XDIST_WORKER", "main")
    seen = dict(name=name, ids=fkit_gpus, worker=fkit_worker, uuids=names, total=total)
    Path(os.environ["SEEN_IN"], f"{number}.json").write_text(json.dumps(seen))
    if number == 2 and os.environ.get("SEEN_DEATH"):
        os.kill(WORKER, signal.SIGKILL)

def test_dies():
    assert torch.cuda.device_count()
    os.abort()
"""


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    found = detect()
    if found.vendor not in ("nvidia", "amd") or not torch.cuda.is_available():
        pytest.skip("no GPU that PyTorch can use")
    seen = visible(found, os.environ)
    return Fleet(found.vendor, tuple(entry.device for entry in seen.entries))


def _run(
    directory: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> tuple[str, list[dict[str, Any]]]:
    (directory / "test_seen.py").write_text(SUITE)
    (directory / "seen").mkdir(exist_ok=True)
    foreign = ("PYTEST_", "FKIT_", "TOX_")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "--fkit", "-rA", *arguments],
        cwd=directory,
        env={**inherited, "SEEN_IN": str(directory / "seen"), "COLUMNS": "300", **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = [json.loads(path.read_text()) for path in sorted((directory / "seen").iterdir())]
    assert found, ended.stdout + ended.stderr
    return ended.stdout, found


def _uuids(fleet: Fleet, ids: list[str]) -> list[str]:
    """Without what vendors put in front, as PyTorch has them."""
    by_id = {str(device.ordinal): device.uuid for device in fleet.devices}
    return [by_id[each].partition("-")[2] for each in ids]


@pytest.mark.parametrize("arguments", ["-n auto", "-n2 --fkit-gpus-per-worker=1", "-n0"])
def test_tests_compute_on_the_gpus_of_their_slice(
    fleet: Fleet, tmp_path: Path, arguments: str
) -> None:
    out, found = _run(tmp_path, *arguments.split(), "-k", "test_it")
    assert len(found) == 6
    for seen in found:
        assert seen["total"] == [1000.0] * len(seen["ids"]) != []
        if fleet.vendor == "nvidia":
            assert seen["uuids"] == _uuids(fleet, seen["ids"])
    assert "6 passed" in out


def test_a_mask_of_uuids_is_divided(fleet: Fleet, tmp_path: Path) -> None:
    if fleet.vendor != "nvidia":
        pytest.skip("HIP's UUIDs are shorter than those of PyTorch")
    mask = ",".join(device.uuid for device in reversed(fleet.devices))
    _, found = _run(tmp_path, "-n1", "-k", "test_it", env={"CUDA_VISIBLE_DEVICES": mask})
    expected = [str(device.ordinal) for device in reversed(fleet.devices)][:2]
    assert {tuple(seen["ids"]) for seen in found} == {tuple(expected)}
    assert all(seen["uuids"] == _uuids(fleet, expected) for seen in found)


def test_a_worker_that_is_killed_hands_its_gpus_on(fleet: Fleet, tmp_path: Path) -> None:
    out, found = _run(tmp_path, "-n1", "-k", "test_it", env={"SEEN_DEATH": "1"})
    assert "replacing crashed worker gw0" in out
    assert {seen["name"] for seen in found} == {"gw0", "gw1"}
    assert len({(seen["worker"], *seen["ids"], *seen["uuids"]) for seen in found}) == 1


def test_the_command_that_runs_a_crash_again_has_the_mask(fleet: Fleet, tmp_path: Path) -> None:
    out, _ = _run(tmp_path, "-n1")
    [command] = [line for line in out.splitlines() if line.startswith("reproduce: ")]
    words = shlex.split(command)
    variable = "CUDA_VISIBLE_DEVICES" if fleet.vendor == "nvidia" else "ROCR_VISIBLE_DEVICES"
    assert any(word.startswith(f"{variable}=") for word in words)
    assert "worker gw0, GPU" in out
