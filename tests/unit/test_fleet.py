"""The machines with GPUs that other tests run on: CUDA as its guide has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from fleet import Gpu, amd, compiler, describe, from_json, nvidia
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
