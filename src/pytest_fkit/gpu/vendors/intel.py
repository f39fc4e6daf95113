"""Intel's GPUs: xpu-smi, else the discrete ones among the kernel's render devices.

An integrated GPU is no GPU to compute on unless xpu-smi, a Level Zero program, lists it and nothing
else.

Level Zero counts discrete GPUs before integrated ones, in PCI order among themselves if
ZE_ENABLE_PCI_ID_DEVICE_ORDER is set (execution_environment.cpp in intel/compute-runtime); xpu-smi
sets that for itself. Where it is not set, the order of equal GPUs is the kernel's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Mapping, Sequence

from ...own import own_builtins
from ..answers import (
    MissingError,
    load_json,
    mapping,
    mappings,
    number,
    pci_address,
    pci_order,
    rubbish,
    word,
)
from ..devices import Device
from ..machine import Machine
from .vendor import Entry, Found, Prober, Vendor, Visible, Way, by_number, unmasked

own_builtins(globals())

_MASK = "ZE_AFFINITY_MASK"
_PCI_VENDOR = 0x8086


def absent(machine: Machine) -> str:
    gpus = machine.render_devices(_PCI_VENDOR)
    if not gpus:
        return "no render device"
    if all(_integrated(gpu.pci) for gpu in gpus) and not machine.tool("xpu-smi"):
        return "only an integrated GPU, and no xpu-smi"
    return ""


def _integrated(pci: str) -> bool:
    """Whether a GPU is part of the processor: on its own PCI bus, the one numbered 0."""
    return not pci or pci.split(":")[1] == "00"


# --- listing ------------------------------------------------------------------------------------


def parse_discovery(text: str) -> Found:
    """What ``xpu-smi discovery -j`` of Intel XPU Manager prints.

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
    return _in_order(devices)


def ask_drm(prober: Prober) -> Found:
    """The kernel's render devices; nothing but its PCI layer is asked."""
    gpus = prober.machine.render_devices(_PCI_VENDOR)
    discrete = [Device("intel", 0, "", gpu.pci) for gpu in gpus if not _integrated(gpu.pci)]
    if not discrete:
        raise MissingError("only an integrated GPU")
    return _in_order(discrete)


def _in_order(devices: list[Device]) -> Found:
    ordered = sorted(devices, key=lambda gpu: (_integrated(gpu.pci), pci_order(gpu.pci)))
    counted = [gpu._replace(ordinal=ordinal) for ordinal, gpu in enumerate(ordered)]
    discrete = [gpu for gpu in counted if not _integrated(gpu.pci)]
    if not discrete or len(discrete) == len(counted):
        return Found(tuple(counted))
    return Found(tuple(discrete), ("the integrated GPU is left out",))


WAYS = (
    Way("xpu-smi", lambda prober: parse_discovery(prober.tool("xpu-smi", "discovery", "-j"))),
    Way("DRM", ask_drm),
)


# --- masks --------------------------------------------------------------------------------------


def visible(devices: Sequence[Device], environ: Mapping[str, str]) -> Visible:
    """ZE_AFFINITY_MASK is a filter: entries that name nothing are passed over.

    Level Zero specification, "Affinity mask": device or device.subdevice, each a number.
    """
    mask = environ.get(_MASK, "")
    if mask in ("", "default"):
        return unmasked("intel", devices)
    notices: list[str] = []
    found: dict[str, Entry] = {}
    for text in (each.strip() for each in mask.split(",")):
        ordinal, _, tile = text.partition(".")
        entry = by_number(devices, ordinal)
        if entry is None:
            notices.append(f"{_MASK}={mask}: {text!r} names no GPU")
        else:
            found[text] = replace(entry, text=text, tile=tile)
    return Visible("intel", tuple(found.values()), tuple(notices))


def variables(
    entries: Sequence[Entry], _inherited: Mapping[str, str], _amd_mask: str
) -> dict[str, str]:
    return {_MASK: ",".join(entry.text for entry in entries) or "-1"}


INTEL = Vendor(
    "intel",
    "Intel",
    (_MASK,),
    absent,
    lambda: WAYS,
    visible,
    variables,
    frozenset({"intel", "intel(r)"}),
)
