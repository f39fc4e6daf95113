"""NVIDIA's GPUs."""

from __future__ import annotations

import re
from typing import Callable, Mapping, Sequence

from ...own import own_builtins
from ..answers import FailedError, MissingError
from ..devices import Device
from ..machine import Machine
from .vendor import Entry, Found, Prober, Vendor, Visible, Way, by_number, until_invalid

own_builtins(globals())

_MASK = "CUDA_VISIBLE_DEVICES"
_ORDER = "CUDA_DEVICE_ORDER"
_TOOL = "nvidia-smi"
_UUIDS = ("GPU-", "MIG-")

# CUDA reads the digits at the beginning of an entry, as strtoul does: "1gpu" is 1.
_LEADING_NUMBER = re.compile(r"\s*\+?(\d+)")


def _has_driver(machine: Machine) -> bool:
    """Whether the kernel has NVIDIA's driver, as far as this process can see."""
    # A container shares /proc with a machine that has GPUs, but not its device files; on the
    # machine itself these are made by the first program that asks NVML. /dev/dxg is WSL's.
    return bool(
        machine.exists("proc/driver/nvidia")
        or machine.names("dev", r"nvidia(ctl|\d+)")
        or machine.exists("dev/dxg")
    )


def absent(machine: Machine) -> str:
    # GPUs that are reached over a network come with libraries and an nvidia-smi, and no driver.
    if _has_driver(machine) or machine.tool(_TOOL):
        return ""
    return f"no driver (none of /proc/driver/nvidia, /dev/nvidia*, /dev/dxg is there), no {_TOOL}"


def ways() -> Sequence[Way]:
    from .nvidia_listing import ask_nvidia_smi, ask_nvml, ask_proc

    return (
        Way("NVML", _where_there_is_a_driver(ask_nvml)),
        Way(_TOOL, _where_there_is_a_driver(ask_nvidia_smi)),
        Way("/proc", ask_proc),
    )


def _where_there_is_a_driver(find: Callable[[Prober], Found]) -> Callable[[Prober], Found]:
    """Have nobody told that it failed on a machine that merely has NVIDIA's programs."""

    def ask(prober: Prober) -> Found:
        try:
            return find(prober)
        except FailedError as error:
            if _has_driver(prober.machine):
                raise
            raise MissingError(str(error)) from error

    return ask


def visible(devices: Sequence[Device], environ: Mapping[str, str]) -> Visible:
    """As in the CUDA C++ programming guide, "CUDA environment variables".

    A repeated entry makes the whole list void. Without a mask, MIG instances have UUIDs only.
    """
    mask = environ.get(_MASK)
    if mask is None:
        by_uuid = any(device.parent for device in devices)
        return Visible(
            "nvidia",
            tuple(
                Entry(each, each.uuid if by_uuid and each.uuid else str(each.ordinal))
                for each in devices
            ),
        )
    numbered = not mask.startswith(_UUIDS)

    def find(text: str) -> Entry | None:
        if not numbered:
            return _by_uuid(devices, text)
        match = _LEADING_NUMBER.match(text)
        return by_number(devices, match[1]) if match else None

    notices: list[str] = []
    entries = list(until_invalid(_MASK, mask, find, notices))
    if len({entry.device for entry in entries}) < len(entries):
        notices.append(f"{_MASK}={mask}: a GPU is named twice, so CUDA shows none")
        entries = []
    if entries and numbered and _orders_differ(devices, environ):
        notices.append(
            f"{_MASK}={mask} counts in CUDA's own order, the fastest GPU first: ids here may mean "
            f"other GPUs than nvidia-smi's; {_ORDER}=PCI_BUS_ID makes them the same"
        )
    return Visible("nvidia", tuple(entries), tuple(notices))


def _by_uuid(devices: Sequence[Device], text: str) -> Entry | None:
    if not text.startswith(_UUIDS):
        return None
    instances = [each for each in devices if each.parent.startswith(text)]
    if len({each.parent for each in instances}) == 1:
        return Entry(instances[0], text)  # of a GPU in MIG mode CUDA shows the first one
    found = [each for each in devices if each.uuid.startswith(text)]
    return Entry(found[0], text) if len(found) == 1 else None


def _orders_differ(devices: Sequence[Device], environ: Mapping[str, str]) -> bool:
    different = len({(each.name, each.memory) for each in devices if not each.parent}) > 1
    return different and environ.get(_ORDER) != "PCI_BUS_ID"


def variables(
    entries: Sequence[Entry], inherited: Mapping[str, str], _amd_mask: str
) -> dict[str, str]:
    if not entries:
        return {_MASK: "-1"}
    found = {_MASK: ",".join(entry.text for entry in entries)}
    # Inherited numbers count in an order that was chosen before.
    if inherited.get(_MASK, "GPU-").startswith(_UUIDS) and _ORDER not in inherited:
        return {_ORDER: "PCI_BUS_ID", **found}
    return found


NVIDIA = Vendor(
    "nvidia",
    "NVIDIA",
    (_MASK,),
    absent,
    ways,
    visible,
    variables,
    frozenset({"nvidia"}),
    probe="pytest_fkit.gpu.vendors.cuda:probe",
    memory="pytest_fkit.gpu.vendors.nvml:MemoryOfNvidiaGpus",
)
