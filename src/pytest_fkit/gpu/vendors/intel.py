"""Intel's GPUs: xpu-smi, else the discrete ones among the kernel's render devices.

An integrated GPU is no GPU to compute on unless xpu-smi, a Level Zero program, lists it and nothing
else.

Level Zero counts discrete GPUs before integrated ones, in PCI order among themselves if
ZE_ENABLE_PCI_ID_DEVICE_ORDER is set (execution_environment.cpp in intel/compute-runtime); xpu-smi
sets that for itself. Where it is not set, the order of equal GPUs is the kernel's.
"""

from __future__ import annotations

from ..asking.failures import MissingError
from ..asking.reading import (
    load_json,
    mapping,
    mappings,
    number,
    pci_address,
    pci_order,
    rubbish,
    word,
)
from ..asking.ways import Found, Prober, Way
from ..devices import Device
from .drm import INTEL, integrated, render_devices


def ask_xpu_smi(prober: Prober) -> Found:
    """The program of Intel XPU Manager."""
    return parse_discovery(prober.tool("xpu-smi", "discovery", "-j"))


def parse_discovery(text: str) -> Found:
    """What ``xpu-smi discovery -j`` prints.

    It is {"device_list": [...]} with "device_id", "device_type", "device_name", "pci_bdf_address"
    and "uuid", and "device_function_type", which is "virtual" for a share of a GPU that is on the
    list itself (Intel XPU System Management Interface User Guide).

    :raises FailedError: if it is not that.
    """
    said = mapping(load_json(text))
    if not isinstance(said.get("device_list"), list):
        raise rubbish(text)
    devices = [
        Device(
            "intel",
            0,
            word(entry.get("uuid")),
            pci_address(entry.get("pci_bdf_address")),
            word(entry.get("device_name")),
            number(entry.get("memory_physical_size_byte")) or 0,
        )
        for entry in mappings(said["device_list"])
        if entry.get("device_type") == "GPU" and entry.get("device_function_type") != "virtual"
    ]
    return _numbered(devices)


def ask_drm(prober: Prober) -> Found:
    """The kernel's render devices; nothing but its PCI layer is asked."""
    gpus = [device for device in render_devices(prober.machine) if device.vendor == INTEL]
    discrete = [Device("intel", 0, "", gpu.pci) for gpu in gpus if not integrated(gpu.pci)]
    if not discrete:
        raise MissingError("only an integrated GPU")
    return _numbered(discrete)


def _numbered(devices: list[Device]) -> Found:
    ordered = sorted(devices, key=lambda gpu: (integrated(gpu.pci), pci_order(gpu.pci)))
    numbered = [
        Device("intel", ordinal, gpu.uuid, gpu.pci, gpu.name, gpu.memory)
        for ordinal, gpu in enumerate(ordered)
    ]
    discrete = [gpu for gpu in numbered if not integrated(gpu.pci)]
    if not discrete or len(discrete) == len(numbered):
        return Found(tuple(numbered))
    return Found(tuple(discrete), ("the integrated GPU is left out",))


WAYS = (Way("xpu-smi", ask_xpu_smi), Way("DRM", ask_drm))
