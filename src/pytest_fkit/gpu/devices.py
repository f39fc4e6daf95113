"""The GPUs of one machine, and how close they are to each other."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ..named_tuple import NamedTuple
from ..own import own_builtins

own_builtins(globals())


class Device(NamedTuple):
    """One GPU, or one MIG instance, that a process can be given.

    :param vendor: a name in :data:`.detection.VENDORS`.
    :param ordinal: the number that the vendor's runtime gives it where no mask is set: CUDA's in
        PCI bus order, HIP's; for a MIG instance the one of its GPU.
    :param uuid: as the vendor's mask variable accepts it, "" if unknown.
    :param pci: PCI address as in "0000:41:00.0", lower case, "" if unknown.
    :param name: for people, "" if unknown.
    :param memory: bytes, 0 if unknown.
    :param parent: uuid of the GPU that a MIG instance is part of, "" for a whole GPU.
    :param node: its NUMA node, -1 if unknown.
    :param links: PCI addresses of the GPUs that it has direct links to (NVLink, xGMI).
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


class Fleet(NamedTuple):
    """The GPUs of one machine, all of one vendor.

    :param vendor: a name in :data:`.detection.VENDORS`, "" where there are no GPUs.
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
    vendor, devices, trail, notices = fleet
    return vendor, tuple(map(tuple, devices)), trail, notices


def from_wire(data: tuple[Any, ...]) -> Fleet:
    """The fleet that :func:`to_wire` turned into `data`."""
    vendor, devices, trail, notices = data
    known = (Device(*values)._replace(links=tuple(links)) for *values, links in devices)
    return Fleet(vendor, tuple(known), tuple(trail), tuple(notices))


def gpu_names(gpus: Sequence[str]) -> str:
    """As in "GPU 4" or "GPUs 0,1"; "" for none."""
    return f"GPU{'' if len(gpus) == 1 else 's'} {','.join(gpus)}" if gpus else ""


def placed(worker: str, gpus: Sequence[str]) -> str:
    """As in "gw1 (GPU 4)"."""
    return f"{worker} ({gpu_names(gpus)})" if gpus else worker


LINKED, ONE_SOCKET, FAR = 0, 1, 2
"""Between two GPUs: a direct link (NVLink, xGMI), one NUMA node, neither."""


def way_between(one: Device, other: Device) -> int | None:
    """LINKED, ONE_SOCKET or FAR; None if nobody knows."""
    if one.pci and one.pci == other.pci:
        return LINKED  # parts of one GPU
    if other.pci in one.links or one.pci in other.links:
        return LINKED
    if one.node < 0 or other.node < 0:
        return FAR if one.links or other.links else None
    return ONE_SOCKET if one.node == other.node else FAR


class Nearness:
    """How close the GPUs of a run are, by names that no two machines share."""

    def __init__(self) -> None:
        self._devices: dict[str, Device] = {}
        self._places: dict[str, int] = {}

    def add(self, devices: Mapping[str, Device]) -> None:
        """Learn of the GPUs of a machine, in its order."""
        self._devices.update(devices)
        self._places.update({name: place for place, name in enumerate(devices)})

    def place(self, name: str) -> int:
        """A GPU's place in the order of its machine, 0 if nothing is known of it."""
        return self._places.get(name, 0)

    def is_part(self, name: str) -> bool:
        """Whether it is a MIG instance; a process that sees one sees no other GPU."""
        return name in self._devices and bool(self._devices[name].parent)

    def between(self, one: str, other: str) -> int | None:
        """See :func:`way_between`."""
        if one not in self._devices or other not in self._devices:
            return None
        return way_between(self._devices[one], self._devices[other])
