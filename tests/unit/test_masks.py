"""Mask variables, read as the vendors' runtimes read them."""

from __future__ import annotations

from typing import Any, Mapping

import pytest
from gpu_values import amd, ascend, intel, mig, nvidia

import fleet as fleets
from pytest_fkit.gpu.devices import Device, Fleet
from pytest_fkit.gpu.machine import Machine
from pytest_fkit.gpu.vendors.detection import MASKS, visible
from pytest_fkit.gpu.vendors.vendor import Visible

U = [device.uuid for device in nvidia(8).devices]
A = [device.uuid for device in amd(8).devices]
M = [device.uuid for device in mig(2, 3).devices]


def ids(seen: Visible) -> list[str]:
    return [entry.id for entry in seen.entries]


def texts(seen: Visible) -> list[str]:
    return [entry.text for entry in seen.entries]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, ["0", "1", "2", "3"]),
        ("0,1,2,3", ["0", "1", "2", "3"]),
        ("2,0", ["2", "0"]),
        ("3", ["3"]),
        ("", []),
        ("-1", []),
        ("0,2,-1,1", ["0", "2"]),
        ("0,9,1", ["0"]),
        ("0,x,1", ["0"]),
        ("0,,1", ["0"]),
        (" 1, 2", ["1", "2"]),
        ("+1,2", ["1", "2"]),
        ("1gpu2,2ampere", ["1", "2"]),
        ("02,1", ["2", "1"]),
        ("NoDevFiles", []),
        ("1,1", []),
        ("0,1,2,0", []),
        ("0,-1,0", ["0"]),
        (f"0,{U[1]}", ["0"]),
    ],
)
def test_numbers_in_cuda_visible_devices(mask: str | None, expected: list[str]) -> None:
    seen = visible(nvidia(4), {} if mask is None else {"CUDA_VISIBLE_DEVICES": mask})
    assert ids(seen) == texts(seen) == expected


@pytest.mark.parametrize(
    ("mask", "expected", "entries"),
    [
        (f"{U[2]},{U[0]}", ["2", "0"], [U[2], U[0]]),
        ("GPU-00000003,GPU-00000001", ["3", "1"], ["GPU-00000003", "GPU-00000001"]),
        ("GPU-0000000", [], []),  # not the beginning of one only
        (f"{U[1]},GPU-ff,{U[0]}", ["1"], [U[1]]),
        (f"{U[1]},0", ["1"], [U[1]]),
        (f"{U[1]},GPU-00000001", [], []),  # twice the same
    ],
)
def test_uuids_in_cuda_visible_devices(mask: str, expected: list[str], entries: list[str]) -> None:
    seen = visible(nvidia(8), {"CUDA_VISIBLE_DEVICES": mask})
    assert (ids(seen), texts(seen)) == (expected, entries)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, M),
        (f"{M[4]},{M[1]}", [M[4], M[1]]),
        ("MIG-00010002", [M[5]]),
        ("MIG-0001", []),
        ("1", [M[3]]),  # CUDA shows the first instance of the GPU
        ("GPU-00000001", [M[3]]),
        (f"{M[0]},{M[0]}", []),
    ],
)
def test_mig_instances(mask: str | None, expected: list[str]) -> None:
    seen = visible(mig(2, 3), {} if mask is None else {"CUDA_VISIBLE_DEVICES": mask})
    assert ids(seen) == expected
    assert texts(seen) == (M if mask is None else mask.split(",")[: len(expected)])


def test_a_whole_gpu_beside_mig_instances_has_its_uuid_in_the_list() -> None:
    seen = visible(mig(1, 2, whole=1), {})
    assert ids(seen)[2] == "1"
    assert texts(seen)[2] == U[1]


@pytest.mark.parametrize(
    ("environ", "expected", "outer", "inner"),
    [
        ({}, "0 1 2 3", "0 1 2 3", "0 1 2 3"),
        ({"ROCR": "2,3"}, "2 3", "2 3", "0 1"),
        ({"ROCR": "3,1", "HIP": "1,0"}, "1 3", "1 3", "1 0"),
        ({"ROCR": "2,3", "CUDA": "1"}, "3", "3", "1"),
        ({"HIP": "1", "CUDA": "2"}, "1", "1", "1"),
        ({"CUDA": "2,1"}, "2 1", "2 1", "2 1"),
        ({"ROCR": "1,1,2"}, "1", "1", "0"),
        ({"ROCR": "1,7,2"}, "1", "1", "0"),
        ({"ROCR": ""}, "", "", ""),
        ({"ROCR": "-1"}, "", "", ""),
        ({"ROCR": "2,3", "HIP": "2"}, "", "", ""),  # HIP counts in the two that ROCr left
        ({"HIP": "1,1,2"}, "1 2", "1 2", "1 2"),
        ({"HIP": "1,x,2"}, "1", "1", "1"),
        ({"HIP": "1, 2"}, "1", "1", "1"),  # HIP takes digits only
        ({"HIP": "-1"}, "", "", ""),
        ({"HIP": ""}, "", "", ""),
        ({"CUDA": ""}, "", "", ""),
        ({"ROCR": f"{A[2]},{A[0].lower()}"}, "2 0", f"{A[2]} {A[0].lower()}", "0 1"),
        ({"ROCR": f"{A[2]},0", "HIP": "1"}, "0", "0", "1"),
        ({"HIP": f"{A[1]},0"}, "1 0", "1 0", f"{A[1]} 0"),
    ],
)
def test_amd(environ: Mapping[str, str], expected: str, outer: str, inner: str) -> None:
    seen = visible(amd(4), {f"{name}_VISIBLE_DEVICES": text for name, text in environ.items()})
    assert ids(seen) == expected.split()
    assert texts(seen) == outer.split()
    assert [entry.index for entry in seen.entries] == inner.split()


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, ["0", "1", "2"]),
        ("", ["0", "1", "2"]),
        ("default", ["0", "1", "2"]),
        ("2,0", ["2", "0"]),
        ("0.0,0.1", ["0.0", "0.1"]),
        ("7,1,1", ["1"]),  # a filter
    ],
)
def test_intel(mask: str | None, expected: list[str]) -> None:
    seen = visible(intel(3), {} if mask is None else {"ZE_AFFINITY_MASK": mask})
    assert ids(seen) == texts(seen) == expected


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, ["0", "1", "2", "3"]),
        ("1,2,3", ["1", "2", "3"]),
        ("1, 2,3", ["1"]),
        ("1,3,8", ["1", "3"]),
        ("1,2,-1,3", ["1", "2"]),
        ("", []),
    ],
)
def test_ascend(mask: str | None, expected: list[str]) -> None:
    seen = visible(ascend(4), {} if mask is None else {"ASCEND_RT_VISIBLE_DEVICES": mask})
    assert ids(seen) == expected


@pytest.mark.parametrize(
    ("fleet", "environ", "said"),
    [
        (nvidia(2), {"CUDA_VISIBLE_DEVICES": "0,5"}, "nothing from '5' on is visible"),
        (nvidia(2), {"CUDA_VISIBLE_DEVICES": "0,0"}, "a GPU is named twice, so CUDA shows none"),
        (amd(2), {"ROCR_VISIBLE_DEVICES": "0,5"}, "nothing from '5' on is visible"),
        (amd(2), {"HIP_VISIBLE_DEVICES": ""}, "HIP_VISIBLE_DEVICES is empty, which HIP takes for"),
        (intel(2), {"ZE_AFFINITY_MASK": "5"}, "'5' names no GPU"),
    ],
)
def test_what_a_mask_gets_wrong_is_said(fleet: Fleet, environ: Any, said: str) -> None:
    [notice] = visible(fleet, environ).notices
    assert said in notice


@pytest.mark.parametrize("mask", ["", "-1", "0,-1", "1,0"])
def test_what_is_meant_is_not(mask: str) -> None:
    assert not visible(nvidia(2), {"CUDA_VISIBLE_DEVICES": mask}).notices


def test_numbers_that_count_the_fastest_first_are_said_to_where_gpus_differ() -> None:
    fleet = Fleet("nvidia", (*nvidia(1).devices, Device("nvidia", 1, "GPU-1", name="NVIDIA L4")))
    environ = {"CUDA_VISIBLE_DEVICES": "1,0"}
    [notice] = visible(fleet, environ).notices
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in notice
    assert not visible(fleet, {**environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}).notices
    assert not visible(fleet, {}).notices


def test_no_gpus() -> None:
    assert visible(Fleet(), {"CUDA_VISIBLE_DEVICES": "0"}) == Visible()


def test_masks_of_each_vendor_are_kept_from_tools_and_fake_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in MASKS:
        monkeypatch.setenv(name, "0")
    assert not MASKS & Machine.here().environment().keys()
    assert MASKS.issubset(fleets.MASKS)
