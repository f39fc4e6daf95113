"""Asking for the GPUs of the vendors that may be there, way after way, within a limit."""

from __future__ import annotations

import importlib
from dataclasses import replace

from ...own import own_builtins, time
from ..asking.failures import FailedError, MissingError
from ..asking.machine import Machine
from ..asking.reading import number
from ..asking.throwaway import Kill, kill_group, output_of
from ..asking.ways import Found, Prober, Way
from ..devices import Device, Fleet

own_builtins(globals())


def search(
    vendors: list[str], machine: Machine, deadline: float, trail: list[str], kill: Kill | None
) -> Fleet:
    """The GPUs of the first of the vendors that has any.

    :param vendors: some of :data:`.devices.VENDORS`, in the order in which to ask.
    :param deadline: on the monotonic clock.
    :param trail: what there is to say already.
    """
    asking = _Search(machine, deadline, kill or kill_group, trail)
    for vendor in vendors:
        devices = asking.devices(vendor)
        if devices:
            return Fleet(vendor, devices, tuple(asking.trail), tuple(asking.notices))
    return Fleet("", (), tuple(asking.trail), tuple(asking.notices))


class _Search:
    def __init__(self, machine: Machine, deadline: float, kill: Kill, trail: list[str]) -> None:
        self._machine = machine
        self._deadline = deadline
        self._kill = kill
        self.trail = list(trail)
        self.notices: list[str] = []
        self._lost: set[str] = set()

    def devices(self, vendor: str) -> tuple[Device, ...]:
        ways: tuple[Way, ...] = importlib.import_module(f"{__package__}.{vendor}").WAYS
        for place, way in enumerate(ways, 1):
            # A way that hangs must leave time to those after it; a driver that hangs one usually
            # hangs the next as well, so it is the first that has to have enough.
            left = self._deadline - time.monotonic()
            share = left if place == len(ways) else left / 2
            found = self._try(f"{vendor}: {way.name}", way, share)
            if found is not None:
                return tuple(
                    _with_node(self._machine, device)
                    for device in found.devices
                    if not (device.pci and device.pci in self._lost)
                )
        return ()

    def _try(self, title: str, way: Way, share: float) -> Found | None:
        began = time.monotonic()
        deadline = began + share

        def run(command: list[str]) -> str:
            left = deadline - time.monotonic()
            if left <= 0:
                raise FailedError("not asked, no time is left")
            return output_of(command, self._machine.environment(), left, self._kill)

        try:
            found = way.find(Prober(self._machine, run))
        except MissingError as error:
            self._note(f"{title}: {error}")
            return None
        except FailedError as error:
            self._lost.update(error.lost)
            self._notice(f"{title}: {error}")
            return None
        except Exception as error:  # noqa: BLE001 (no answer of a tool may end the run; it is told)
            self._notice(f"{title}: can't be understood ({type(error).__name__}: {error})")
            return None
        seconds = time.monotonic() - began
        self._note(f"{title}: {len(found.devices)} found in {seconds:.2f} s")
        for line in found.notes:
            self._note(f"{title}: {line}")
        for line in found.notices:
            self._notice(f"{title}: {line}")
        return found

    def _note(self, line: str) -> None:
        self.trail.append(line)

    def _notice(self, line: str) -> None:
        self.trail.append(line)
        self.notices.append(line)


def _with_node(machine: Machine, device: Device) -> Device:
    """With its NUMA node, if the kernel knows it (sysfs-bus-pci in the kernel's ABI documents)."""
    text = machine.text(f"sys/bus/pci/devices/{device.pci}/numa_node") if device.pci else ""
    node = number(text)
    return device if node is None else replace(device, node=node)
