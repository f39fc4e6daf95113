"""What tools and files say of GPUs, in samples of the formats that their vendors document."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_fkit.gpu import answers as reading
from pytest_fkit.gpu.answers import FailedError
from pytest_fkit.gpu.devices import Device, Fleet, from_wire, to_wire
from pytest_fkit.gpu.vendors import ascend, intel, kfd
from pytest_fkit.gpu.vendors import nvidia_listing as nvidia

GIB = 1 << 30

# The MIG User Guide's machine: an A100 with two instances of 3g.20gb; and a second one, whole.
_QUERY = """\
0, GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f, 00000000:07:00.0, A100-SXM4-40GB, 40960, Enabled
1, GPU-9434a402-0d94-4ef8-93d0-0528ee662e9c, 00000000:0F:00.0, A100-SXM4-40GB, 40960, Disabled
"""
_LIST = """\
GPU 0: A100-SXM4-40GB (UUID: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f)
  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
  MIG 3g.20gb     Device  1: (UUID: MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d)
GPU 1: A100-SXM4-40GB (UUID: GPU-9434a402-0d94-4ef8-93d0-0528ee662e9c)
"""
_WHOLE = Device(
    "nvidia",
    1,
    "GPU-9434a402-0d94-4ef8-93d0-0528ee662e9c",
    "0000:0f:00.0",
    "A100-SXM4-40GB",
    40 * GIB,
)


def test_a_gpu_in_mig_mode_is_replaced_by_its_instances() -> None:
    found = nvidia.with_instances(nvidia.parse_query(_QUERY), nvidia.parse_list(_LIST))
    first, second, whole = found.devices
    assert whole == _WHOLE
    assert first == Device(
        "nvidia",
        0,
        "MIG-c7384736-a75d-5afc-978f-d2f1294409fd",
        "0000:07:00.0",
        "A100-SXM4-40GB MIG 3g.20gb",
        0,
        "GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f",
    )
    assert second.uuid == "MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d"
    assert not found.notices


def test_instances_of_drivers_before_r470() -> None:
    uuid = "GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f"
    listed = f"GPU 0: A100 (UUID: {uuid})\n  MIG 1g.5gb Device 0: (UUID: MIG-{uuid}/7/0)\n"
    assert nvidia.parse_list(listed) == {uuid: [(f"MIG-{uuid}/7/0", "1g.5gb")]}


def test_a_gpu_in_mig_mode_without_instances_is_left_out_and_named() -> None:
    found = nvidia.with_instances(nvidia.parse_query(_QUERY), {})
    assert found.devices == (_WHOLE,)
    assert found.notices == ("GPU 0 is left out: it is in MIG mode and has no instances",)


def test_what_a_gpu_does_not_know() -> None:
    # A GB10 has no memory of its own; a GPU without MIG says N/A, an old one Not Supported.
    line = (
        "0, GPU-9434a402-0d94-4ef8-93d0-0528ee662e9c, 0000000F:01:00.0, NVIDIA GB10, [N/A], [N/A]"
    )
    [(device, mig, lost)] = nvidia.parse_query(line).gpus
    assert device == Device(
        "nvidia", 0, "GPU-9434a402-0d94-4ef8-93d0-0528ee662e9c", "000f:01:00.0", "NVIDIA GB10"
    )
    assert not mig
    assert not lost


def test_a_lost_gpu_is_left_out_and_the_others_keep_their_numbers() -> None:
    lines = (
        "0, GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f, 00000000:07:00.0, "
        "[GPU is lost], [GPU is lost], [GPU is lost]\n" + _QUERY.splitlines()[1]
    )
    found = nvidia.with_instances(nvidia.parse_query(lines), {})
    assert found.devices == (_WHOLE,)
    assert found.notices == (f"GPU 0 is left out: {lines.splitlines()[0]}",)


@pytest.mark.parametrize(
    "row",
    [
        # nvmlErrorString: NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED, NVML_ERROR_UNKNOWN
        "0, GPU-5c89852c, 00000000:07:00.0, A100, [GPU requires reset], Disabled",
        "0, [Unknown Error], 00000000:07:00.0, [Unknown Error], [Unknown Error], [Unknown Error]",
        "0, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost]",
        # gpustat issue 125
        "Unable to determine the device handle for GPU 0000:07:00.0: Unknown Error",
        "Unable to determine the device handle for GPU0000:07:00.0: GPU is lost.  Reboot",
        "0, GPU-5c89852c, half a row",
    ],
)
@pytest.mark.parametrize("banner", ["", "Sun Jun  1 10:00:00 2026\n\n** cuda/12.9 **\n"])
def test_the_healthy_between_others_are_used_and_the_bad_row_is_quoted(
    row: str, banner: str
) -> None:
    whole = _QUERY.splitlines()[1]
    for lines in ([row, whole], [whole, row]):
        answer = nvidia.parse_query(f"{banner}{chr(10).join(lines)}\nbye, now\n")
        found = nvidia.with_instances(answer, {})
        assert found.devices == (_WHOLE,)
        [notice] = found.notices
        assert row in notice
        assert "left out" in notice


def test_a_jetson() -> None:
    # pytorch/pytorch issue 167304; fields that its driver does not know, ultralytics pull request
    # 20680
    uuid = "1833c8b5-aa0c-5372-b78e-1d6c22f7ac08"
    [gpu] = nvidia.parse_query(f"0, {uuid}, [N/A], Orin (nvgpu), [N/A], [N/A]").gpus
    assert gpu == (Device("nvidia", 0, uuid, "", "Orin (nvgpu)"), False, "")


def test_a_warning_is_a_notice() -> None:
    warning = "WARNING: infoROM is corrupted at gpu 0000:0F:00.0"
    found = nvidia.with_instances(nvidia.parse_query(f"{_QUERY.splitlines()[1]}\n{warning}\n"), {})
    assert found.devices == (_WHOLE,)
    assert found.notices == (warning,)


def test_no_nvidia_gpus() -> None:
    assert nvidia.parse_query("No devices were found\n").gpus == ()
    assert nvidia.parse_nvml([]).devices == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
        "0, GPU-5c89852c, 00000000:07:00.0, NVIDIA A100",
        "zero, GPU-5c89852c, 00000000:07:00.0, NVIDIA A100, 1, Disabled",
        "0, 5c89852c, 00000000:07:00.0, NVIDIA A100, 1, Disabled",
        _QUERY + "\0",
        "[" * 100_000,
    ],
)
def test_what_is_no_list_of_gpus(text: str) -> None:
    with pytest.raises(FailedError, match="can't be understood"):
        nvidia.parse_query(text)


def test_nvml() -> None:
    found = nvidia.parse_nvml(
        [
            {
                "index": 0,
                "uuid": "GPU-0",
                "pci": "00000000:07:00.0",
                "name": "A100-SXM4-40GB",
                "memory": 40 * GIB,
                "mig": True,
                "instances": [{"uuid": "MIG-0", "name": "A100 MIG 3g.20gb", "memory": 20 * GIB}],
            },
            {"index": 1, "error": "GPU is lost"},
            {"index": 2, "uuid": "GPU-2", "mig": False},
        ]
    )
    assert found.devices == (
        Device("nvidia", 0, "MIG-0", "0000:07:00.0", "A100 MIG 3g.20gb", 20 * GIB, "GPU-0"),
        Device("nvidia", 2, "GPU-2"),
    )
    assert found.notices == ("GPU 1 is left out: GPU is lost",)


# The format of nv-procfs.c in NVIDIA's open-gpu-kernel-modules.
_INFORMATION = """\
Model: \t\t A100-SXM4-40GB
IRQ:   \t\t 337
GPU UUID: \t %s
Video BIOS: \t 92.00.36.00.01
Bus Type: \t PCIe
DMA Size: \t 47 bits
DMA Mask: \t 0x7fffffffffff
Bus Location: \t 0000:07:00.0
Device Minor: \t 0
GPU Excluded:\t %s
"""


def _proc(
    pci: str, uuid: str, *, excluded: str = "No", openable: bool = True, mig: bool = False
) -> Any:
    information = _INFORMATION % (uuid, excluded)
    return {"pci": pci, "information": information, "openable": openable, "mig": mig}


def test_proc_counts_what_can_be_opened_in_pci_order() -> None:
    found = nvidia.parse_proc(
        [
            _proc("0000:bd:00.0", "GPU-3"),
            _proc("0000:07:00.0", "GPU-????????-????-????-????-????????????"),
            _proc("0000:0f:00.0", "GPU-1", openable=False),
            _proc("0000:47:00.0", "GPU-2", excluded="Yes"),
            _proc("10000:01:00.0", "GPU-4"),
        ]
    )
    name = "A100-SXM4-40GB"
    assert found.devices == (
        Device("nvidia", 0, "", "0000:07:00.0", name),
        Device("nvidia", 1, "GPU-3", "0000:bd:00.0", name),
        Device("nvidia", 2, "GPU-4", "10000:01:00.0", name),
    )


def test_proc_does_not_know_the_instances_of_a_gpu_in_mig_mode() -> None:
    found = nvidia.parse_proc(
        [_proc("0000:07:00.0", "GPU-0", mig=True), _proc("0000:0f:00.0", "GPU-1")]
    )
    assert [(device.ordinal, device.uuid) for device in found.devices] == [(1, "GPU-1")]
    assert found.notices == ("GPU 0 is left out: its MIG instances can't be told from /proc",)


_NAME = "AMD Instinct MI300X"
_MI300X = [
    Device("amd", 0, "GPU-a1a135c28c84b0d7", "0000:05:00.0", _NAME, 196592 << 20),
    Device("amd", 1, "GPU-00f2b7a9c4d8f1e3", "0000:46:00.0", _NAME, 196592 << 20),
]


_NODES = [
    kfd.Node(2, "GPU-a1a135c28c84b0d7", "0000:05:00.0", _NAME, 196592 << 20, opens=True),
    kfd.Node(3, "GPU-00f2b7a9c4d8f1e3", "0000:46:00.0", _NAME, 196592 << 20, opens=True),
]


def test_amd_gpus_in_the_order_of_the_nodes() -> None:
    assert kfd.as_devices(_NODES[::-1]).devices == tuple(_MI300X)


def test_amd_gpus_that_do_not_open_are_not_counted() -> None:
    closed = [_NODES[0]._replace(opens=False), _NODES[1]]
    found = kfd.as_devices(closed)
    assert [(gpu.ordinal, gpu.pci) for gpu in found.devices] == [(0, "0000:46:00.0")]
    assert not found.notices
    nothing = kfd.as_devices([node._replace(opens=False) for node in _NODES])
    assert nothing.notices == ("left out, /dev/dri/renderD* does not open: node 2, 3",)


def test_an_integrated_amd_gpu_is_counted_and_left_out() -> None:
    nodes = [kfd.Node(1, "", "0000:0e:00.0", "gfx1036", 512 << 20, opens=True), *_NODES]
    found = kfd.as_devices(nodes)
    assert [gpu.ordinal for gpu in found.devices] == [1, 2]
    assert found.notes == ("GPU 0 is left out: an integrated one, with 512 MiB",)


def test_the_topology() -> None:
    # kfd_topology.c in the Linux kernel; an MI300X and an MI210, by its target.
    properties = {
        "simd_count": "1216",
        "location_id": str(0x4600),
        "domain": "0",
        "drm_render_minor": "128",
        "gfx_target_version": "90402",
        "unique_id": str(0xF2B7A9C4D8F1E3),
    }
    bank = {"heap_type": "1", "size_in_bytes": str(192 * GIB)}
    nodes = kfd.parse_nodes(
        [
            {"node": 3, "properties": properties, "opens": True, "product": "MI300X", "vram": "5"},
            {
                "node": 4,
                "properties": {
                    "location_id": "33049", "domain": "1", "gfx_target_version": "90010",
                    "unique_id": "0",
                },
                "opens": False,
                "banks": [bank, {"heap_type": "0", "size_in_bytes": "77"}],
            },
        ]
    )  # fmt: skip
    assert nodes == [
        kfd.Node(3, "GPU-00f2b7a9c4d8f1e3", "0000:46:00.0", "MI300X", 5, opens=True),
        kfd.Node(4, "", "0001:81:03.1", "gfx90a", 192 * GIB, opens=False),
    ]


def test_partitions_of_an_amd_gpu_have_their_own_memory_and_no_common_uuid() -> None:
    def partition(node: int) -> dict[str, Any]:
        # The partition's number is in the uppermost bits of location_id.
        location = str(0x4600 | node << 28)
        return {
            "node": node,
            "properties": {
                "location_id": location,
                "unique_id": "7",
                "gfx_target_version": "90402",
            },
            "opens": True,
            "vram": str(192 * GIB) if node == 1 else "",
            "banks": [{"heap_type": "1", "size_in_bytes": str(24 * GIB)}],
        }

    nodes = kfd.parse_nodes([partition(1), partition(2)])
    found = kfd.as_devices(nodes)
    assert list(found.devices) == [
        Device("amd", ordinal, "", "0000:46:00.0", "gfx942", 24 * GIB) for ordinal in (0, 1)
    ]


_XPU_SMI = {
    "device_list": [
        {
            "device_id": 1,
            "device_function_type": "physical",
            "device_name": "Intel(R) Data Center GPU Flex Series 170",
            "device_type": "GPU",
            "drm_device": "/dev/dri/card1",
            "pci_bdf_address": "0000:4d:00.0",
            "pci_device_id": "0x56c0",
            "uuid": "01000000-0000-004d-0000-000856c08086",
            "vendor_name": "Intel(R) Corporation",
        },
        {
            "device_id": 0,
            "device_name": "Intel(R) UHD Graphics 770",
            "device_type": "GPU",
            "pci_bdf_address": "0000:00:02.0",
        },
        {
            "device_id": 2,
            "device_function_type": "virtual",
            "device_type": "GPU",
            "pci_bdf_address": "0000:4d:00.1",
        },
    ]
}


def test_xpu_smi_without_integrated_and_virtual_ones() -> None:
    found = intel.parse_discovery(json.dumps(_XPU_SMI))
    assert found.devices == (
        Device(
            "intel",
            0,
            "01000000-0000-004d-0000-000856c08086",
            "0000:4d:00.0",
            "Intel(R) Data Center GPU Flex Series 170",
        ),
    )


@pytest.mark.parametrize("banner", ["[WARNING] low power", "WARNING: GPU device(s) is/are in …"])
def test_banners_before_and_after(banner: str) -> None:
    said = f"{banner}\n{json.dumps(_XPU_SMI, indent=4)}\n\n{banner}\n"
    assert intel.parse_discovery(said) == intel.parse_discovery(json.dumps(_XPU_SMI))


def test_xpu_smi_that_lists_nothing_but_an_integrated_one() -> None:
    found = intel.parse_discovery(json.dumps({"device_list": _XPU_SMI["device_list"][1:2]}))
    assert [gpu.pci for gpu in found.devices] == ["0000:00:02.0"]


@pytest.mark.parametrize("phy", ["", "Chip Phy-ID                    "])
def test_npu_smi(phy: str) -> None:
    # npu-smi Command Reference, "npu-smi info -m", on a machine with 910B3s; the second die of a
    # card counts on.
    number = "7                              " if phy else ""
    none = "-                              " if phy else ""
    table = (
        f"\tNPU ID      Chip ID     Chip Logic ID   {phy}Chip Name        \n"
        f"\t0           0           0               {number}Ascend 910B3\n"
        f"\t0           1           -               {none}Mcu             \n"
        f"\t5           0           1               {number}Ascend 910B3\n"
    )
    assert ascend.parse_mapping(table).devices == (
        Device("ascend", 0, name="Ascend 910B3"),
        Device("ascend", 1, name="Ascend 910B3"),
    )


@pytest.mark.parametrize(
    ("printed", "address"),
    [
        ("00000000:0F:00.0", "0000:0f:00.0"),
        ("0000:0f:00.0", "0000:0f:00.0"),
        ("0f:00.1", "0000:0f:00.1"),
        ("00010000:0f:00.0", "10000:0f:00.0"),
        ("N/A", ""),
        ("0000:0f:00", ""),
        (None, ""),
        (7, ""),
    ],
)
def test_pci_addresses(printed: object, address: str) -> None:
    assert reading.pci_address(printed) == address


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (" NVIDIA A100 ", "NVIDIA A100"),
        ("[N/A]", ""),
        ("n/a", ""),
        ("[Not Supported]", ""),
        ("[Unknown Error]", ""),
        (None, ""),
        (7, ""),
    ],
)
def test_words(value: object, text: str) -> None:
    assert reading.word(value) == text


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (5, 5), ("5", 5), (" 5\n", 5), ("", None), ("-5", None), (-5, None), (True, None),
        (5.0, None), ("5.0", None), (None, None), ([5], None), ("N/A", None), (1 << 63, None),
        ("9" * 30, None), ("\u0665", None), ("5\x1f", 5),
    ],
)  # fmt: skip
def test_numbers(value: object, number: int | None) -> None:
    assert reading.number(value) == number


def test_a_fleet_survives_the_wire() -> None:
    fleet = Fleet("nvidia", (_WHOLE, Device("nvidia", 2)), ("one", "two"), ("two",))
    assert from_wire(to_wire(fleet)) == fleet
    assert from_wire(to_wire(Fleet())) == Fleet()
