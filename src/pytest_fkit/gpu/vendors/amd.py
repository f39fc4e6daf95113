"""AMD's GPUs."""

from __future__ import annotations

import importlib.machinery
import sys
from typing import Iterator, Mapping, Sequence

from ...own import os, own_builtins
from ..devices import Device
from ..machine import Machine
from .vendor import Entry, Vendor, Visible, Way, by_number, unmasked, until_invalid, until_repeated

own_builtins(globals())

_ROCR, _HIP, _CUDA = "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"

_PCI_VENDOR = 0x1002

# PyTorch's wheels for ROCm have the runtime inside, or depend on the ROCm SDK's.
_WHEELS = (("torch", "lib"), ("_rocm_sdk_core", "lib"))


def absent(machine: Machine) -> str:
    if not machine.exists("dev/kfd"):
        return "no compute driver (there is no /dev/kfd)"
    from .kfd import LEAST_MEMORY

    memory = [device.memory for device in machine.render_devices(_PCI_VENDOR)]
    if memory and min(memory) > 0 and max(memory) < LEAST_MEMORY:
        return f"only integrated GPUs (the largest has {max(memory) >> 20} MiB of its own)"
    return ""


def ways() -> Sequence[Way]:
    from .kfd import WAYS

    return WAYS


def visible(devices: Sequence[Device], environ: Mapping[str, str]) -> Visible:
    """ROCr filters first, and ends at a repeated entry; HIP counts in what ROCr left.

    HIP_VISIBLE_DEVICES goes before CUDA_VISIBLE_DEVICES (ROCclr, rocdevice.cpp).
    """
    notices: list[str] = []
    outer = environ.get(_ROCR)
    left: Sequence[Entry] = unmasked("amd", devices).entries
    if outer is not None:

        def find(text: str) -> Entry | None:
            return _in_rocr(devices, text.strip())

        left = until_repeated(until_invalid(_ROCR, outer, find, notices))
    left = [Entry(each.device, each.text, str(index)) for index, each in enumerate(left)]
    entries = _in_hip(left, environ, notices)
    return Visible("amd", tuple(entries), tuple(notices))


def _in_rocr(devices: Sequence[Device], text: str) -> Entry | None:
    if not text.upper().startswith("GPU-"):
        return by_number(devices, text)
    found = [each for each in devices if each.uuid.upper().startswith(text.upper())]
    return Entry(found[0], text) if len(found) == 1 else None


def _in_hip(left: list[Entry], environ: Mapping[str, str], notices: list[str]) -> list[Entry]:
    name = _HIP if _HIP in environ else _CUDA
    mask = environ.get(name)
    if mask is None:
        return left
    if not mask:
        # ROCclr takes it for unset, PyTorch for none: nothing is touched, so that both go on.
        if left:
            notices.append(
                f"{name} is empty, which HIP takes for unset and PyTorch for no GPUs: GPUs are "
                f"not distributed; unset {name}, or set it to -1"
            )
        return []

    def find(text: str) -> Entry | None:
        for each in left:
            by_uuid = text.startswith("GPU-") and each.device.uuid.startswith(text)
            if text == each.index or by_uuid:
                return Entry(each.device, each.text, text)
        return None

    return _once(until_invalid(name, mask, find, notices))


def _once(entries: Iterator[Entry]) -> list[Entry]:
    found: dict[Device, Entry] = {}
    for entry in entries:
        found.setdefault(entry.device, entry)
    return list(found.values())


def variables(
    entries: Sequence[Entry], _inherited: Mapping[str, str], amd_mask: str
) -> dict[str, str]:
    """See :class:`.Vendor`.

    :param amd_mask: "rocr": ROCR_VISIBLE_DEVICES picks, and HIP counts in what that leaves; "hip":
        HIP_VISIBLE_DEVICES picks, ROCR_VISIBLE_DEVICES stays as it is.
    """
    if amd_mask == "hip":
        indices = [entry.index for entry in entries]
    else:
        # The same numbers in both would count twice: HIP counts in what ROCr leaves.
        indices = [str(index) for index in range(len(entries))]
    # No GPU has the number -1; HIP takes an empty mask for an unset one.
    inner = ",".join(indices) or "-1"
    found = {_HIP: inner, _CUDA: inner}
    if amd_mask == "hip":
        return found
    return {_ROCR: ",".join(entry.text for entry in entries) or "-1", **found}


def probe_arguments() -> list[str]:
    """The directories in which Python packages have HIP's library."""
    return [os.pathsep.join(wheel_directories(sys.path))]


def wheel_directories(path: Sequence[str]) -> list[str]:
    """Where Python packages have HIP's library, none of them imported."""
    return [
        f"{location}/{directory}"
        for package, directory in _WHEELS
        for spec in [importlib.machinery.PathFinder.find_spec(package, path)]
        if spec is not None
        for location in spec.submodule_search_locations or ()
    ]


AMD = Vendor(
    "amd",
    "AMD",
    (_ROCR, _HIP, _CUDA),
    absent,
    ways,
    visible,
    variables,
    frozenset({"amd", "instinct", "radeon"}),
    sharing="processes that share one have hung AMD's driver",
    probe="pytest_fkit.gpu.vendors.hip:probe",
    probe_arguments=probe_arguments,
    memory="pytest_fkit.gpu.vendors.kfd:MemoryOfAmdGpus",
)
