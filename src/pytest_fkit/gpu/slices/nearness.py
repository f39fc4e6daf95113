"""How close GPUs of a machine are to each other."""

from __future__ import annotations

from typing import Mapping

from ...own import own_builtins
from ..devices import Device

own_builtins(globals())

LINKED, ONE_SOCKET, APART = 0, 1, 2
"""Between two GPUs: a link of their own (NVLink, xGMI), one NUMA node, neither."""


def way_between(one: Device, other: Device) -> int | None:
    """LINKED, ONE_SOCKET or APART; None if nobody knows."""
    if one.pci and one.pci == other.pci:
        return LINKED  # parts of one GPU
    if other.pci in one.links or one.pci in other.links:
        return LINKED
    if one.node < 0 or other.node < 0:
        return APART if one.links or other.links else None
    return ONE_SOCKET if one.node == other.node else APART


class Nearness:
    """Of the GPUs of a run, by names that no two machines share."""

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

    def between(self, one: str, other: str) -> int | None:
        """See :func:`way_between`."""
        if one not in self._devices or other not in self._devices:
            return None
        return way_between(self._devices[one], self._devices[other])
