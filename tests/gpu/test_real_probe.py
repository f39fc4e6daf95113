"""Probes of a real NVIDIA GPU; no framework is needed. What was measured is printed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest

from pytest_fkit.gpu.devices import Fleet
from pytest_fkit.gpu.health import probe
from pytest_fkit.gpu.health.probe import PROBE_LIMIT, Health, Probe
from pytest_fkit.gpu.vendors.detection import detect, visible

Say = Callable[[str], None]

HEALTHY = Health("healthy")


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    found = detect()
    seen = visible(found, os.environ)
    if found.vendor != "nvidia" or not seen.entries:
        pytest.skip(f"no NVIDIA GPU: {'; '.join(found.trail)}")
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        pytest.skip(str(error))
    return Fleet(found.vendor, tuple(entry.device for entry in seen.entries))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Say:
    """Prints a line, whatever pytest captures."""

    def line(text: str) -> None:
        with capsys.disabled():
            print(f"\nMEASURED {request.node.name}: {text}", flush=True)

    return line


def _start(expected: int, **variables: str) -> Probe:
    environ = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", **variables}
    return probe.start("nvidia", environ, PROBE_LIMIT, expected)


def _one(fleet: Fleet) -> str:
    """The mask of the first GPU."""
    return fleet.devices[0].uuid or str(fleet.devices[0].ordinal)


def test_healthy_gpus_are_healthy(fleet: Fleet, say: Say) -> None:
    number = len(fleet.devices)
    masks = {"CUDA_VISIBLE_DEVICES": _one(fleet)} if number > 1 else {}
    for what, expected, variables in (
        (f"all {number} GPUs that are visible", number, {}),
        ("one GPU, first time", 1, masks),
        ("one GPU, second time", 1, masks),
        ("one GPU, third time", 1, masks),
    ):
        began = time.perf_counter()
        started = _start(expected, **variables)
        returned = time.perf_counter() - began
        health = started.result()
        seconds = time.perf_counter() - began
        say(
            f"{what}: {health.state} {health.reason!r} after {seconds:.2f} s, start() returned "
            f"after {1000 * returned:.1f} ms, uncorrected ECC errors by NVML: {started.ecc}"
        )
        assert health == HEALTHY
        assert len(started.ecc) in (0, expected)  # some GPUs have no ECC


@pytest.mark.parametrize("mask", ["7", "-1", ""])
def test_a_mask_of_a_gpu_that_is_not_there_is_sick(fleet: Fleet, say: Say, mask: str) -> None:
    if len(fleet.devices) > 7:
        pytest.skip("there is a GPU 7")
    health = _start(1, CUDA_VISIBLE_DEVICES=mask).result()
    say(f"CUDA_VISIBLE_DEVICES={mask!r}, 1 GPU expected: {health}")
    assert health == Health("sick", "cuInit: CUDA_ERROR_NO_DEVICE (100)")


def test_fewer_gpus_than_the_slice_has_are_sick(fleet: Fleet, say: Say) -> None:
    mask = _one(fleet)
    health = _start(2, CUDA_VISIBLE_DEVICES=mask).result()
    say(f"CUDA_VISIBLE_DEVICES={mask}, 2 GPUs expected: {health}")
    assert health == Health("sick", "CUDA shows 1 of 2 GPUs")


# Takes the memory of the first GPU, in ever smaller pieces, and keeps it.
_HOLDER = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
device, context, total = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_size_t()
assert cuda.cuInit(0) == 0
assert cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
assert cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device) == 0
assert cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device) == 0
taken, piece = 0, 1 << 30
while piece >= 1 << 16 and taken < total.value:
    address = ctypes.c_uint64()
    status = cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(piece))
    if status == 0:
        taken += piece
    else:
        assert status == 2, status  # out of memory
        piece //= 2
print(f"{taken >> 20} of {total.value >> 20} MiB", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def _full(mask: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER],
        env={**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": mask},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    with holder:
        try:
            yield holder, holder.stdout.readline().strip()
        finally:
            holder.kill()


def test_a_gpu_whose_memory_is_full_is_unknown(fleet: Fleet, say: Say) -> None:
    mask = _one(fleet)
    with _full(mask) as (holder, taken):
        assert taken, "the process that takes the memory failed"
        began = time.perf_counter()
        health = _start(1, CUDA_VISIBLE_DEVICES=mask).result()
        seconds = time.perf_counter() - began
        say(f"another process has {taken}: {health} after {seconds:.2f} s")
        assert health.state == "unknown"
        assert health.reason.endswith("CUDA_ERROR_OUT_OF_MEMORY (2)")
        holder.kill()
        holder.wait()
        killed = time.perf_counter()
        health = _start(1, CUDA_VISIBLE_DEVICES=mask).result()
        seconds = time.perf_counter() - killed
        say(f"right after it was killed and waited for: {health}, {seconds:.2f} s later")
        assert health == HEALTHY


_SUITE = "def test_it(): pass\n"


@pytest.mark.parametrize("switch", ["off", "on"])
def test_a_run(fleet: Fleet, say: Say, tmp_path: Path, switch: str) -> None:
    (tmp_path / "test_it.py").write_text(_SUITE)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TOX_"))}
    began = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "--fkit", "-n1", f"--fkit-probe={switch}", "-rA"],
        cwd=tmp_path,
        env=inherited,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    seconds = time.perf_counter() - began
    [header] = [line for line in ended.stdout.splitlines() if line.startswith("fkit: 1 worker")]
    say(f"one empty test with --fkit-probe={switch}: {seconds:.2f} s; {header}")
    assert "NVIDIA GPU" in header
    assert "probe: " not in ended.stdout
    assert "1 passed" in ended.stdout


def test_a_run_with_a_sick_gpu(fleet: Fleet, say: Say, tmp_path: Path) -> None:
    if len(fleet.devices) > 7:
        pytest.skip("there is a GPU 7")
    (tmp_path / "test_it.py").write_text(_SUITE)
    # What was found by NVML is one thing, what CUDA shows another, as with a GPU that is gone.
    (tmp_path / "conftest.py").write_text(
        "from pytest_fkit.gpu.devices import Device\n"
        "def pytest_fkit_gpus(config):\n"
        "    return [Device('nvidia', 0), Device('nvidia', 7)]\n"
    )
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TOX_"))}
    inherited.pop("CUDA_VISIBLE_DEVICES", None)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "--fkit", "-n2", "--fkit-gpus-per-worker=1", "-rA"],
        cwd=tmp_path,
        env=inherited,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = [line for line in ended.stdout.splitlines() if "fkit: " in line]
    say("\n".join(["one real GPU and one that is not there:", *lines]))
    assert "1 passed" in ended.stdout
    assert any("gw1" in line and "CUDA_ERROR_NO_DEVICE" in line for line in lines)
    assert not any("gw0 (GPU" in line for line in lines)
