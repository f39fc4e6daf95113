"""How each vendor's runtime reads its mask variables: which GPUs a caller's environment leaves.

The caller's mask is all there is: entries are picked from it, in its order, and never renumbered.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, Iterator, Mapping, Optional, Sequence

from ...own import own_builtins
from ..devices import Device, Fleet

own_builtins(globals())

MASKS = {
    "nvidia": ("CUDA_VISIBLE_DEVICES",),
    "amd": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
    "intel": ("ZE_AFFINITY_MASK",),
    "ascend": ("ASCEND_RT_VISIBLE_DEVICES",),
}
"""The variables by vendor, the outermost first."""

# CUDA reads the digits at the beginning of an entry, as strtoul does: "1gpu" is 1.
_LEADING_NUMBER = re.compile(r"\s*\+?(\d+)")


@dataclass(frozen=True)
class Entry:
    """One GPU, and how a mask picks it.

    :param text: what the vendor's outermost mask variable calls it.
    :param index: AMD: what HIP_VISIBLE_DEVICES calls it, within the ROCR_VISIBLE_DEVICES that were
        inherited.
    """

    device: Device
    text: str
    index: str = ""

    @property
    def id(self) -> str:
        """The GPU's number without a mask; the UUID of a MIG instance; device.tile at Intel."""
        if self.device.vendor == "intel":
            return self.text
        return self.device.uuid if self.device.parent else str(self.device.ordinal)


@dataclass(frozen=True)
class Visible:
    """What an environment leaves visible of a fleet.

    :param vendor: one of devices.VENDORS, or "".
    :param entries: in the order of the masks.
    :param numbered: NVIDIA: whether a mask was inherited that consists of numbers.
    :param notices: what a user has to know about the masks.
    """

    vendor: str = ""
    entries: tuple[Entry, ...] = ()
    numbered: bool = False
    notices: tuple[str, ...] = ()

    @property
    def most(self) -> int:
        """How many GPUs one process can see: of MIG instances one, whatever its mask names."""
        whole = sum(not entry.device.parent for entry in self.entries)
        return whole or min(1, len(self.entries))


def visible(fleet: Fleet, environ: Mapping[str, str]) -> Visible:
    """What the masks in `environ` leave of `fleet`."""
    if not fleet.devices:
        return Visible(fleet.vendor)
    return _READERS[fleet.vendor](fleet.devices, environ)


# --- lists --------------------------------------------------------------------------------------


_Find = Callable[[str], Optional[Entry]]


def _until_invalid(name: str, mask: str, find: _Find, notices: list[str]) -> Iterator[Entry]:
    """The entries up to the first that names nothing."""
    for text in mask.split(","):
        entry = find(text)
        if entry is None:
            # "-1" is how one says that the list ends here, or that it is empty.
            if text.strip() not in ("", "-1"):
                notices.append(f"{name}={mask}: nothing from {text.strip()!r} on is visible")
            return
        yield entry


def _ended_by_repetition(entries: Iterator[Entry]) -> list[Entry]:
    found: list[Entry] = []
    for entry in entries:
        if entry.device in [each.device for each in found]:
            break
        found.append(entry)
    return found


def _once(entries: Iterator[Entry]) -> list[Entry]:
    found: dict[Device, Entry] = {}
    for entry in entries:
        found.setdefault(entry.device, entry)
    return list(found.values())


def _by_number(devices: Sequence[Device], text: str) -> Entry | None:
    if text.isdigit():
        for device in devices:
            if device.ordinal == int(text):
                return Entry(device, str(int(text)))
    return None


# --- NVIDIA -------------------------------------------------------------------------------------


def _nvidia(devices: Sequence[Device], environ: Mapping[str, str]) -> Visible:
    """As in the CUDA C++ programming guide, "CUDA environment variables".

    A repeated entry makes the whole list void. Without a mask, MIG instances have UUIDs only.
    """
    mask = environ.get("CUDA_VISIBLE_DEVICES")
    if mask is None:
        by_uuid = any(device.parent for device in devices)
        return Visible(
            "nvidia",
            tuple(
                Entry(each, each.uuid if by_uuid and each.uuid else str(each.ordinal))
                for each in devices
            ),
        )
    numbered = not mask.startswith(("GPU-", "MIG-"))

    def find(text: str) -> Entry | None:
        if not numbered:
            return _by_uuid(devices, text)
        match = _LEADING_NUMBER.match(text)
        return _by_number(devices, match[1]) if match else None

    notices: list[str] = []
    entries = list(_until_invalid("CUDA_VISIBLE_DEVICES", mask, find, notices))
    if len({entry.device for entry in entries}) < len(entries):
        notices.append(f"CUDA_VISIBLE_DEVICES={mask}: a GPU is named twice, so CUDA shows none")
        entries = []
    if entries and numbered and _orders_differ(devices, environ):
        notices.append(
            f"CUDA_VISIBLE_DEVICES={mask} counts in CUDA's own order, the fastest GPU first: ids "
            "here may mean other GPUs than nvidia-smi's; CUDA_DEVICE_ORDER=PCI_BUS_ID makes them "
            "the same"
        )
    return Visible("nvidia", tuple(entries), numbered, tuple(notices))


def _by_uuid(devices: Sequence[Device], text: str) -> Entry | None:
    if not text.startswith(("GPU-", "MIG-")):
        return None
    instances = [each for each in devices if each.parent.startswith(text)]
    if len({each.parent for each in instances}) == 1:
        return Entry(instances[0], text)  # of a GPU in MIG mode CUDA shows the first one
    found = [each for each in devices if each.uuid.startswith(text)]
    return Entry(found[0], text) if len(found) == 1 else None


def _orders_differ(devices: Sequence[Device], environ: Mapping[str, str]) -> bool:
    different = len({(each.name, each.memory) for each in devices if not each.parent}) > 1
    return different and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID"


# --- AMD ----------------------------------------------------------------------------------------


def _amd(devices: Sequence[Device], environ: Mapping[str, str]) -> Visible:
    """ROCr filters first, and ends at a repeated entry; HIP counts in what ROCr left.

    HIP_VISIBLE_DEVICES goes before CUDA_VISIBLE_DEVICES (ROCclr, rocdevice.cpp).
    """
    notices: list[str] = []
    outer = environ.get("ROCR_VISIBLE_DEVICES")
    if outer is None:
        left = [Entry(each, str(each.ordinal)) for each in devices]
    else:

        def find(text: str) -> Entry | None:
            return _in_rocr(devices, text.strip())

        left = _ended_by_repetition(_until_invalid("ROCR_VISIBLE_DEVICES", outer, find, notices))
    left = [Entry(each.device, each.text, str(index)) for index, each in enumerate(left)]
    entries = _in_hip(left, environ, notices)
    return Visible("amd", tuple(entries), notices=tuple(notices))


def _in_rocr(devices: Sequence[Device], text: str) -> Entry | None:
    if not text.upper().startswith("GPU-"):
        return _by_number(devices, text)
    found = [each for each in devices if each.uuid.upper().startswith(text.upper())]
    return Entry(found[0], text) if len(found) == 1 else None


def _in_hip(left: list[Entry], environ: Mapping[str, str], notices: list[str]) -> list[Entry]:
    name = "HIP_VISIBLE_DEVICES" if "HIP_VISIBLE_DEVICES" in environ else "CUDA_VISIBLE_DEVICES"
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

    return _once(_until_invalid(name, mask, find, notices))


# --- others -------------------------------------------------------------------------------------


def _intel(devices: Sequence[Device], environ: Mapping[str, str]) -> Visible:
    """ZE_AFFINITY_MASK is a filter: entries that name nothing are passed over.

    Level Zero specification, "Affinity mask": device or device.subdevice, each a number.
    """
    mask = environ.get("ZE_AFFINITY_MASK", "")
    if mask in ("", "default"):
        return Visible("intel", tuple(Entry(each, str(each.ordinal)) for each in devices))
    notices: list[str] = []
    found: dict[str, Entry] = {}
    for text in (each.strip() for each in mask.split(",")):
        entry = _by_number(devices, text.partition(".")[0])
        if entry is None:
            notices.append(f"ZE_AFFINITY_MASK={mask}: {text!r} names no GPU")
        else:
            found[text] = Entry(entry.device, text)
    return Visible("intel", tuple(found.values()), notices=tuple(notices))


def _ascend(devices: Sequence[Device], environ: Mapping[str, str]) -> Visible:
    """Whatever is no digit and no comma ends the list (CANN, ASCEND_RT_VISIBLE_DEVICES)."""
    mask = environ.get("ASCEND_RT_VISIBLE_DEVICES")
    if mask is None:
        return Visible("ascend", tuple(Entry(each, str(each.ordinal)) for each in devices))
    notices: list[str] = []

    def find(text: str) -> Entry | None:
        return _by_number(devices, text)

    entries = _until_invalid("ASCEND_RT_VISIBLE_DEVICES", mask, find, notices)
    return Visible("ascend", tuple(_ended_by_repetition(entries)), notices=tuple(notices))


_READERS: dict[str, Callable[[Sequence[Device], Mapping[str, str]], Visible]] = {
    "nvidia": _nvidia,
    "amd": _amd,
    "intel": _intel,
    "ascend": _ascend,
}
