"""The kernel's render devices, as far as they can be told without asking their drivers."""

from __future__ import annotations

from typing import NamedTuple

from ...own import own_builtins
from ..asking.machine import Machine
from ..asking.reading import number, pci_address

own_builtins(globals())

AMD, INTEL = 0x1002, 0x8086

LEAST_MEMORY = 4 << 30
"""Bytes of its own that make a GPU of AMD one to compute on.

The ones integrated into AMD's processors have 0.5 to 2 GiB unless their owner gives them more; the
smallest one that ROCm supports has 8 (ROCm system requirements). An MI300A, integrated too, has
128."""


class RenderDevice(NamedTuple):
    """A render device.

    :param minor: the number in /dev/dri/renderD128.
    :param vendor: PCI's number for its maker.
    :param pci: PCI address as in "0000:41:00.0", "" if it has none.
    :param memory: bytes of its own (amdgpu only; Documentation/gpu/amdgpu/driver-misc.rst), 0 if
        unknown.
    """

    minor: int
    vendor: int
    pci: str
    memory: int


def render_devices(machine: Machine) -> list[RenderDevice]:
    """The render devices that sysfs knows, in the order of their numbers.

    Called in our own process. What it reads, the kernel has in memory: no driver is woken up.
    """
    names = machine.names("sys/class/drm", r"renderD\d{1,5}")
    return [_read(machine, int(name[len("renderD") :])) for name in names]


def _read(machine: Machine, minor: int) -> RenderDevice:
    directory = f"sys/class/drm/renderD{minor}/device"
    vendor = machine.text(f"{directory}/vendor").strip()
    event = dict(
        line.split("=", 1)
        for line in machine.text(f"{directory}/uevent").splitlines()
        if "=" in line
    )
    return RenderDevice(
        minor,
        int(vendor, 16) if vendor.startswith("0x") and len(vendor) == len("0x1002") else 0,
        pci_address(event.get("PCI_SLOT_NAME")),
        number(machine.text(f"{directory}/mem_info_vram_total").strip()) or 0,
    )


def integrated(pci: str) -> bool:
    """Whether an Intel GPU is part of the processor: on its own PCI bus, the one numbered 0."""
    return not pci or pci.split(":")[1] == "00"
