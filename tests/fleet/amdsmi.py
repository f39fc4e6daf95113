"""AMD SMI's Python package of a machine that does not exist; put into its ``python``.

Names and values: AMD SMI Python API reference.
"""

from __future__ import annotations

import json
import os
from typing import Any


class AmdSmiException(Exception):  # noqa: N818 (its name there)
    pass


class AmdSmiMemoryType:
    VRAM = 0


_fleet: dict[str, Any] = {}


def amdsmi_init() -> None:
    os.write(1, b"amdgpu.ids: No such file or directory\n")  # libraries below it talk, too
    with open(os.path.join(os.environ["FKIT_FLEET_ROOT"], "fleet.json")) as file:
        _fleet.update(json.load(file))
    if _fleet["behaviours"].get("amdsmi", {}).get("exits"):
        raise AmdSmiException("AMDSMI_STATUS_DRIVER_NOT_LOADED - Driver not loaded")


def amdsmi_get_processor_handles() -> list[Any]:
    return sorted((gpu for gpu in _fleet["gpus"] if gpu["vendor"] == "amd"), key=lambda g: g["smi"])


def amdsmi_get_gpu_device_bdf(handle: Any) -> str:
    return str(handle["pci"])


def amdsmi_get_gpu_kfd_info(handle: Any) -> dict[str, Any]:
    node = handle["node"]
    return {"kfd_id": 20000 + node, "node_id": node, "current_partition_id": 0}


def amdsmi_get_gpu_enumeration_info(handle: Any) -> dict[str, Any]:
    first = min(gpu["node"] for gpu in amdsmi_get_processor_handles())
    return {
        "drm_render": handle["render"],
        "drm_card": handle["render"] - 128,
        "hsa_id": handle["node"],
        "hip_id": handle["node"] - first,
        "hip_uuid": handle["uuid"],
    }


def amdsmi_get_gpu_asic_info(handle: Any) -> dict[str, Any]:
    return {"market_name": handle["name"], "vendor_id": "0x1002"}


def amdsmi_get_gpu_memory_total(handle: Any, kind: int) -> int:
    return int(handle["memory"])
