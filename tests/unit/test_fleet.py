"""The machines with GPUs that other tests run on: CUDA as its guide has it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from fleet import (
    Gpu,
    amd,
    calls_of,
    compiler,
    describe,
    from_json,
    nvidia,
    plan,
    set_state,
    with_framework,
)
from pytest_fkit.gpu.errors.classification import classify
from pytest_fkit.gpu.errors.failure import Failure
from pytest_fkit.gpu.machine import ROOT

MakeFleet = Callable[..., "dict[str, str]"]

needs_cuda = pytest.mark.skipif(
    not compiler() or not sys.platform.startswith("linux"), reason="needs a C compiler and Linux"
)

_PROGRAM = """
import ctypes, json, os, uuid
cuda = ctypes.CDLL("libcuda.so.1")
count = ctypes.c_int(-1)
status = cuda.cuDeviceGetCount(ctypes.byref(count))
assert status == 3, "not initialized"
status = cuda.cuInit(0)
found = []
if status == 0:
    assert cuda.cuDeviceGetCount(ctypes.byref(count)) == 0
    for ordinal in range(count.value):
        device, raw = ctypes.c_int(), ctypes.create_string_buffer(16)
        assert cuda.cuDeviceGet(ctypes.byref(device), ordinal) == 0
        assert cuda.cuDeviceGetUuid_v2(raw, device) == 0
        context, memory = ctypes.c_void_p(), ctypes.c_ulonglong()
        use = cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device)
        if use == 0:
            use = cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(1024))
        found.append([str(uuid.UUID(bytes=raw.raw)), use])
    assert cuda.cuDeviceGet(ctypes.byref(device), count) == 101
    if os.fork() == 0:
        os._exit(cuda.cuInit(0))
    assert os.WEXITSTATUS(os.wait()[1]) == 3, "a forked copy can use the driver"
print(json.dumps([status, found]))
"""


def _cuda(environment: dict[str, str], **masks: str) -> Any:
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, **environment, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", **masks},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return json.loads(run.stdout)


def _uuid(text: str) -> str:
    return text.partition("-")[2]


@needs_cuda
@pytest.mark.parametrize(
    ("mask", "ordinals"),
    [
        (None, [0, 1, 2, 3]),
        ("2,0", [2, 0]),
        ("0,2,-1,1", [0, 2]),
        ("0,9,1", [0]),
        ("GPU-00000003", [3]),
        ("GPU-00000003,1", [3, 1]),
        ("", []),
        ("-1", []),
        ("1,1", []),
        ("no", []),
    ],
)
def test_cuda_obeys_the_mask(fleet: MakeFleet, mask: str | None, ordinals: list[int]) -> None:
    gpus = nvidia(4)
    masks = {} if mask is None else {"CUDA_VISIBLE_DEVICES": mask}
    status, found = _cuda(fleet(gpus), **masks)
    assert status == (0 if ordinals else 100)
    assert [uuid for uuid, _ in found] == [_uuid(gpus[ordinal].uuid) for ordinal in ordinals]


@needs_cuda
def test_cuda_counts_the_fastest_first_by_default(fleet: MakeFleet) -> None:
    gpus = nvidia(3)
    _, found = _cuda(fleet(gpus), CUDA_DEVICE_ORDER="FASTEST_FIRST", CUDA_VISIBLE_DEVICES="0")
    assert [uuid for uuid, _ in found] == [_uuid(gpus[2].uuid)]


@needs_cuda
def test_a_process_has_one_mig_instance(fleet: MakeFleet) -> None:
    [gpu] = nvidia(1, mig=[0], instances=3)
    first, second, _ = gpu.mig or ()
    environment = fleet([gpu])
    assert _cuda(environment) == [0, [[_uuid(first.mig_uuid), 0]]]
    both = f"{second.mig_uuid},{first.mig_uuid}"
    assert _cuda(environment, CUDA_VISIBLE_DEVICES=both) == [0, [[_uuid(second.mig_uuid), 0]]]


@needs_cuda
def test_gpus_that_are_not_well(fleet: MakeFleet) -> None:
    states = {1: "sick", 2: "busy", 3: "full", 4: "missing"}
    _, found = _cuda(fleet(nvidia(5, states=states)))
    assert [use for _, use in found] == [0, 214, 46, 2]


def test_the_description_is_read_as_it_was_written(fleet: MakeFleet) -> None:
    description = describe(nvidia(2, mig=[0]), amd(2, states={1: "sick"}))
    assert from_json(description.to_json()) == description
    root = Path(fleet(nvidia(2, mig=[0]), amd(2, states={1: "sick"}))[ROOT])
    assert from_json((root / "fleet.json").read_text()).gpus == description.gpus


def test_no_two_orders_are_the_same() -> None:
    def order(gpus: list[Gpu], key: str) -> list[int]:
        return [gpu.ordinal for gpu in sorted(gpus, key=lambda gpu: getattr(gpu, key))]

    cards = nvidia(8)
    assert order(cards, "pci") == order(cards, "smi") == list(range(8))
    assert order(cards, "fastest") != order(cards, "pci") != order(cards, "minor")
    for count in (2, 3, 4, 8, 16):
        accelerators = amd(count)
        assert order(accelerators, "node") == list(range(count))
        assert order(accelerators, "smi") != list(range(count)) != order(accelerators, "pci")
        assert len({gpu.pci for gpu in accelerators}) == count


# --- the framework ---

_FRAMEWORK = """
import json, os, sys
import fleet_torch as torch
found = [torch.SEEN, torch.device_count(), torch.is_available()]
for call in sys.argv[1:]:
    try:
        found.append(eval(f"torch.{call}"))
    except RuntimeError as error:
        kind = f"{type(error).__module__}.{type(error).__name__}"
        found.append([kind, str(error).partition("\\n")[0], getattr(error, "error_code", 0)])
print(json.dumps(found))
"""


def _framework(machine: dict[str, str], *calls: str, **masks: str) -> Any:
    run = subprocess.run(
        [sys.executable, "-c", _FRAMEWORK, *calls],
        env={**os.environ, **with_framework(machine), "CUDA_DEVICE_ORDER": "PCI_BUS_ID", **masks},
        capture_output=True, check=False, text=True, timeout=60,
    )  # fmt: skip
    return json.loads(run.stdout) if run.returncode == 0 else (run.returncode, run.stderr)


def _category(told: list[Any]) -> str | None:
    error = classify(Failure((told[0],), told[1], told[2]))
    return None if error is None else error.category


@pytest.mark.parametrize("make", [nvidia, amd])
@pytest.mark.parametrize(
    ("mask", "count"),
    [(None, 4), ("1,2", 2), ("0,3,1", 1), ("3", 0), ("", 0), ("-1", 0), ("0,0", 0), ("9,1", 0)],
)
def test_the_framework_obeys_masks(
    fleet: MakeFleet, make: Callable[..., list[Gpu]], mask: str | None, count: int
) -> None:
    machine = fleet(make(5, states={3: "missing"}))
    name = "ROCR_VISIBLE_DEVICES" if make is amd else "CUDA_VISIBLE_DEVICES"
    found = _framework(machine, "launch(7)", **({} if mask is None else {name: mask}))
    assert found[:3] == [count, count, count > 0]
    assert found[3] == 7 if count else _category(found[3]) == "missing"


def test_amd_masks_count_in_what_the_first_one_leaves(fleet: MakeFleet) -> None:
    machine = fleet(amd(4, states={2: "full"}))
    masks = {"ROCR_VISIBLE_DEVICES": "3,2", "HIP_VISIBLE_DEVICES": "1"}
    assert _category(_framework(machine, "alloc()", **masks)[3]) == "memory"
    # HIP's name wins over CUDA's.
    found = _framework(machine, "launch(2)", **masks, CUDA_VISIBLE_DEVICES="0,1")
    assert found == [1, 1, True, 2]


def test_uuids_in_masks(fleet: MakeFleet) -> None:
    assert _framework(fleet(nvidia(3)), CUDA_VISIBLE_DEVICES="GPU-00000002,0") == [2, 2, True]


@pytest.mark.parametrize(
    ("state", "call", "category", "code"),
    [
        ("busy", "launch()", "busy", 46),
        ("full", "alloc(20)", "memory", 0),
        ("sick", "launch()", "device", 214),
        ("lost", "synchronize()", "suspect", 999),
        ("healthy", "launch(fault='illegal')", "sticky", 700),
        ("healthy", "launch(fault='assert')", "sticky", 710),
        ("healthy", "launch(fault='argument')", "other", 1),
        ("healthy", "launch(device=1)", "ordinal", 101),
    ],
)
def test_what_the_framework_raises(
    fleet: MakeFleet, state: str, call: str, category: str, code: int
) -> None:
    *_, told, after = _framework(fleet(nvidia(1, states={0: state})), call, "launch(device=0)")
    assert told[2] == code
    assert _category(told) == category
    # The context is lost for good, or the next call works.
    assert (after == told) if code in (46, 214, 700, 710, 999) else (after == 42)


def test_a_broken_amd_gpu_aborts(fleet: MakeFleet) -> None:
    machine = fleet(amd(2, states={1: "sick"}))
    for call, category in (("launch(device=1)", "suspect"), ("launch(fault='illegal')", "abort")):
        status, printed = _framework(machine, call)
        assert status == -signal.SIGABRT
        error = classify(Failure(death=True, stderr=printed))
        assert error is not None
        assert error.category == category


def test_what_is_computed_on_a_corrupt_gpu(fleet: MakeFleet) -> None:
    assert _framework(fleet(nvidia(1, states={0: "corrupt"})), "launch(1)")[3] != 1


def test_a_hung_gpu(fleet: MakeFleet) -> None:
    machine = fleet(nvidia(1, states={0: "hung"}))
    program = "import fleet_torch; print('now', flush=True); fleet_torch.synchronize()"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **with_framework(machine)}, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.kill()


def test_a_runtime_does_not_survive_a_fork(fleet: MakeFleet) -> None:
    program = "import os, fleet_torch as t; t.launch(); pid = os.fork(); t.launch(); os.wait()"
    ended = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **with_framework(fleet(nvidia(1)))},
        stderr=subprocess.PIPE, check=True, text=True, timeout=60,
    )  # fmt: skip
    assert "Cannot re-initialize CUDA in forked subprocess" in ended.stderr


def test_a_gpu_breaks_and_heals_at_a_call(fleet: MakeFleet) -> None:
    machine = fleet(nvidia(2))
    root = Path(machine[ROOT])
    plan(root, {0: {2: "busy", 4: "healthy"}})
    first = _framework(machine, "launch(1)", "launch(1)")
    second = _framework(machine, "launch(1)", "launch(1)", "launch(1, device=1)")
    assert first[3] == 1
    assert [_category(each) for each in (first[4], second[3])] == ["busy", "busy"]
    assert second[4:] == [1, 1]
    assert (calls_of(root, 0), calls_of(root, 1)) == (4, 1)
    set_state(root, 1, "missing")
    assert _framework(machine)[0] == 1
    # What the driver's library reads is as it was otherwise.
    described = from_json((root / "fleet.json").read_text())
    assert [gpu.state for gpu in described.gpus] == ["healthy", "missing"]
