"""Every worker has its own GPUs, before anything is imported there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Mapping

import pytest
from gpu_runs import masks, run_on

import fleet as fleets

Fleet = Callable[..., Mapping[str, str]]


def test_the_callers_mask_is_divided_and_nothing_else(fleet: Fleet, tmp_path: Path) -> None:
    ended = run_on(
        fleet(fleets.nvidia(8)), tmp_path, "-n", "auto", workers=2,
        env={"CUDA_VISIBLE_DEVICES": "6,1,4,5", "MINE": "kept"},
    )  # fmt: skip
    assert {name: masks(each, "CUDA") for name, each in ended.seen.items()} == {
        "gw0": "6,1",
        "gw1": "4,5",
    }
    for number, seen in enumerate(ended.seen.values()):
        assert seen.same == [True, True, True]
        assert seen.worker == int(seen.environ["FKIT_WORKER_ID"]) == number
        assert ",".join(seen.gpus) == seen.environ["FKIT_GPU_IDS"] == masks(seen, "CUDA")
        assert str(seen.port) == seen.environ["FKIT_PORT_BASE"]
        assert seen.environ["MINE"] == "kept"
        # Numbers were inherited: in another order they would mean other GPUs.
        assert "CUDA_DEVICE_ORDER" not in seen.environ
        assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in seen.environ
    assert ended.inner.status == 0


def test_uuids_stay_uuids(fleet: Fleet, tmp_path: Path) -> None:
    gpus = fleets.nvidia(4)
    mask = ",".join(gpus[number].uuid for number in (3, 0, 2))
    ended = run_on(
        fleet(gpus), tmp_path, "-n2", "--fkit-gpus-per-worker=1", workers=2,
        env={"CUDA_VISIBLE_DEVICES": mask},
    )  # fmt: skip
    assert masks(ended.seen["gw0"], "CUDA") == gpus[3].uuid
    assert masks(ended.seen["gw1"], "CUDA") == gpus[0].uuid
    assert [seen.gpus for seen in ended.seen.values()] == [["3"], ["0"]]
    assert "gw0 3 | gw1 0 | unowned 2;" in ended.header[0]


def test_mig_instances_one_each(fleet: Fleet, tmp_path: Path) -> None:
    gpus = fleets.nvidia(1, mig=[0], instances=3)
    ended = run_on(fleet(gpus), tmp_path, "-n", "auto", workers=3)
    assert gpus[0].mig is not None
    assert [masks(seen, "CUDA") for seen in ended.seen.values()] == [
        instance.mig_uuid for instance in gpus[0].mig
    ]
    assert "3 workers, 3 NVIDIA MIG instances (" in ended.header[0]


@pytest.mark.parametrize("amd_mask", ["rocr", "hip"])
def test_amd_masks_never_count_twice(fleet: Fleet, tmp_path: Path, amd_mask: str) -> None:
    ended = run_on(
        fleet(fleets.amd(8)), tmp_path, "-n2", f"--fkit-amd-mask={amd_mask}", workers=2,
        env={"ROCR_VISIBLE_DEVICES": "2,3,4,5,6", "HIP_VISIBLE_DEVICES": "4,3,1,0"},
    )  # fmt: skip
    found = [masks(seen, "ROCR", "HIP", "CUDA") for seen in ended.seen.values()]
    if amd_mask == "rocr":
        assert found == [("6,5", "0,1", "0,1"), ("3,2", "0,1", "0,1")]
    else:
        assert found == [("2,3,4,5,6", "4,3", "4,3"), ("2,3,4,5,6", "1,0", "1,0")]
    assert [seen.gpus for seen in ended.seen.values()] == [["6", "5"], ["3", "2"]]


def test_intel(fleet: Fleet, tmp_path: Path) -> None:
    ended = run_on(fleet(fleets.intel(4)), tmp_path, "-n", "auto", workers=2)
    found = [seen.environ["ZE_AFFINITY_MASK"] for seen in ended.seen.values()]
    assert found == ["0,1", "2,3"]


def test_ascend(fleet: Fleet, tmp_path: Path) -> None:
    ended = run_on(fleet(fleets.ascend(4)), tmp_path, "-n", "auto", workers=2)
    found = [seen.environ["ASCEND_RT_VISIBLE_DEVICES"] for seen in ended.seen.values()]
    assert found == ["0,1", "2,3"]


def test_n0_is_a_worker(fleet: Fleet, tmp_path: Path) -> None:
    ended = run_on(fleet(fleets.nvidia(8)), tmp_path, "-n0")
    seen = ended.seen["main"]
    assert (masks(seen, "CUDA"), seen.gpus, seen.worker) == ("0,1", ["0", "1"], 0)
    # Plugins of -p are imported before any hook can be called.
    assert seen.same[1:] == [True, True]
    assert seen.environ["FKIT_PORT_BASE"] == str(seen.port)
    assert (
        "fkit: no workers, 8 NVIDIA GPUs (H100 80GB HBM3, 80 GiB), 2 per worker: main 0,1 |"
        in (ended.header[0])
    )


def test_a_spawned_interpreter_has_its_workers_environment(fleet: Fleet, tmp_path: Path) -> None:
    conftest = """\
import os
import early_plugin
SEEN = early_plugin.SEEN
with open(os.environ["LOG"], "a") as log:
    log.write(f"{os.environ['FKIT_GPU_IDS']} {os.environ['FKIT_PORT_BASE']}\\n")
"""
    ended = run_on(
        fleet(fleets.nvidia(8)), tmp_path, "-n0", "--fkit-start-method=spawn", tests=1,
        env={"LOG": str(tmp_path / "log")}, files={"conftest.py": conftest},
    )  # fmt: skip
    seen = ended.seen["main"]
    assert (masks(seen, "CUDA"), seen.gpus) == ("0,1", ["0", "1"])
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) > 1
    assert set(lines) == {f"0,1 {seen.port}"}


def test_a_hidden_fleet_is_none_and_masks_stay_as_they_are(fleet: Fleet, tmp_path: Path) -> None:
    ended = run_on(
        fleet(fleets.nvidia(8)), tmp_path, "-n2", workers=2, env={"CUDA_VISIBLE_DEVICES": "-1"}
    )
    for number, seen in enumerate(ended.seen.values()):
        assert seen.environ == {
            "CUDA_VISIBLE_DEVICES": "-1",
            "FKIT_WORKER_ID": str(number),
            "FKIT_GPU_IDS": "",
        }
    assert ended.header == ["fkit: 2 workers, isolation: function, timeout: 600 s"]


def test_workers_that_are_killed_hand_slice_number_and_ports_on(
    fleet: Fleet, tmp_path: Path
) -> None:
    ended = run_on(
        fleet(fleets.amd(4)), tmp_path, "-n2", tests=12, workers=2, env={"SEEN_DEATHS": "0 4 8"}
    )
    seen = ended.seen
    assert set(seen) >= {"gw0", "gw1", "gw2", "gw3"}
    assert len({each.host_pid for each in seen.values()}) == len(seen)
    by_number = {seen[name].worker: seen[name] for name in ("gw0", "gw1")}
    assert set(by_number) == {0, 1}
    for each in seen.values():
        first = by_number[each.worker]
        assert (each.environ, each.gpus, each.port) == (first.environ, first.gpus, first.port)
        assert each.same == [True, True, True]


def test_sharing_is_said_and_nobody_takes_all_memory(fleet: Fleet, tmp_path: Path) -> None:
    ended = run_on(
        fleet(fleets.amd(2)), tmp_path, "-n3", workers=3,
        env={"TF_FORCE_GPU_ALLOW_GROWTH": "false"},
    )  # fmt: skip
    assert [seen.gpus for seen in ended.seen.values()] == [["0"], ["1"], ["0"]]
    preallocates = [
        seen.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE") for seen in ended.seen.values()
    ]
    assert preallocates == ["false", None, "false"]
    # What the user has set is not overwritten.
    assert {seen.environ["TF_FORCE_GPU_ALLOW_GROWTH"] for seen in ended.seen.values()} == {"false"}
    warning, line = ended.header
    assert warning.startswith(
        "fkit: 3 workers share 2 AMD GPUs; processes that share one have hung"
    )
    assert "1 per worker, shared: gw0 0 | gw1 1 | gw2 0;" in line


def test_fkit_env(fleet: Fleet, tmp_path: Path) -> None:
    ini = (
        "[pytest]\nfkit_env =\n  MASTER_PORT={port}\n  OMP_NUM_THREADS={cpus}\n"
        "  MINE=w{worker} {gpus} {{}}\n  RAYON_NUM_THREADS=19\n"
    )
    ended = run_on(
        fleet(fleets.nvidia(4)), tmp_path, "-n2", "--fkit-threads-per-worker=auto", workers=2,
        files={"pytest.ini": ini},
        env={"OMP_NUM_THREADS": "17"},
    )  # fmt: skip
    assert [seen.environ["MINE"] for seen in ended.seen.values()] == ["w0 0,1 {}", "w1 2,3 {}"]
    for seen in ended.seen.values():
        assert seen.environ["MASTER_PORT"] == seen.environ["FKIT_PORT_BASE"]
        assert seen.environ["OMP_NUM_THREADS"] == "17"
        share = str(max(1, len(os.sched_getaffinity(0)) // 2))
        assert seen.environ["MKL_NUM_THREADS"] == seen.environ["FKIT_THREADS"] == share
        assert seen.environ["RAYON_NUM_THREADS"] == "19"


@pytest.mark.parametrize("arguments", ["-n2", "-n0"])
def test_who_changes_the_masks_afterwards_is_told_who_sees_what(
    fleet: Fleet, tmp_path: Path, arguments: str
) -> None:
    conftest = """\
import os
if os.environ.get("PYTEST_XDIST_WORKER", "main") == os.environ["CHANGED"]:
    os.environ["CUDA_VISIBLE_DEVICES"] = "0"
"""
    name, prefix, slice_ = ("gw1", "[gw1] ", "2,3") if arguments == "-n2" else ("main", "", "0,1")
    ended = run_on(
        fleet(fleets.nvidia(4)), tmp_path, arguments, "test_other.py", env={"CHANGED": name},
        files={"conftest.py": conftest, "test_other.py": "def test_it(): pass\n"},
    )  # fmt: skip
    [said] = [line for line in ended.inner.lines if "changed the GPUs" in line]
    assert said == (
        f"{prefix}fkit: a plugin, a conftest.py or a test module changed the GPUs of {name}: "
        f"its tests see CUDA_VISIBLE_DEVICES=0, not {slice_}"
    )
    assert ended.inner.status == 0


def test_two_runs_at_once_have_different_ports(fleet: Fleet, tmp_path: Path) -> None:
    inner = """\
import os, subprocess, sys
def test_it(fkit_port):
    other = subprocess.run(
        [sys.executable, "-c", "import os; print(os.environ['FKIT_PORT_BASE'])"],
        capture_output=True, text=True, check=True,
    )
    assert other.stdout.strip() == str(fkit_port)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "--fkit", "-n2", "-p", "no:cacheprovider", "other.py"],
        capture_output=True, text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
"""
    other = """\
import os, pytest
@pytest.mark.parametrize("number", range(4))
def test_inner(number, fkit_port):
    assert fkit_port not in map(int, os.environ["OUTER"].split())
    assert fkit_port == int(os.environ["FKIT_PORT_BASE"])
"""
    conftest = "import os\nos.environ.setdefault('OUTER', os.environ.get('FKIT_PORT_BASE', '0'))\n"
    ended = run_on(
        fleet(fleets.nvidia(4)), tmp_path, "-n1", "test_outer.py",
        files={"test_outer.py": inner, "other.py": other, "conftest.py": conftest},
    )  # fmt: skip
    assert ended.inner.status == 0, ended.inner.out
