"""What is known of the GPUs of one machine."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import Any, Sequence

from ..own import own_builtins

own_builtins(globals())

VENDORS = ("nvidia", "amd", "intel", "ascend")


@dataclass(frozen=True)
class Device:
    """One GPU, or one MIG instance, that a process can be given.

    :param vendor: one of VENDORS.
    :param ordinal: the number that the vendor's runtime gives it where no mask is set: CUDA's in
        PCI bus order, HIP's; for a MIG instance the one of its GPU.
    :param uuid: as the vendor's mask variable accepts it, "" if unknown.
    :param pci: PCI address as in "0000:41:00.0", lower case, "" if unknown.
    :param name: for people, "" if unknown.
    :param memory: bytes, 0 if unknown.
    :param parent: uuid of the GPU that a MIG instance is part of, "" for a whole GPU.
    :param node: the NUMA node that it hangs on, -1 if unknown.
    :param links: PCI addresses of those to which it has links of its own (NVLink, xGMI).
    """

    vendor: str
    ordinal: int
    uuid: str = ""
    pci: str = ""
    name: str = ""
    memory: int = 0
    parent: str = ""
    node: int = -1
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fleet:
    """The GPUs of one machine, all of one vendor.

    :param vendor: one of VENDORS, "" where there are no GPUs.
    :param devices: in the order in which the vendor's runtime counts them.
    :param trail: what detection tried and what came of it, a line each.
    :param notices: the lines of `trail` that a user has to know: what failed, hung or printed
        rubbish.
    """

    vendor: str = ""
    devices: tuple[Device, ...] = ()
    trail: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def to_wire(fleet: Fleet) -> tuple[Any, ...]:
    """The fleet as a tuple of built-in values, as execnet carries them between machines."""
    return astuple(fleet)


def from_wire(data: tuple[Any, ...]) -> Fleet:
    """The fleet that :func:`to_wire` turned into `data`."""
    vendor, devices, trail, notices = data
    return Fleet(vendor, tuple(map(_device, devices)), tuple(trail), tuple(notices))


def _device(data: Sequence[Any]) -> Device:
    *values, links = data
    known = Device(*values)
    return replace(known, links=tuple(links))
