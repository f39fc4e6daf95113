"""The vendors, and finding the GPUs of this machine without a GPU context and without hanging."""

from __future__ import annotations

from typing import Mapping

from ...own import own_builtins, time
from ..answers import FailedError, MissingError, number
from ..devices import Device, Fleet
from ..machine import Machine
from .amd import AMD
from .ascend import ASCEND
from .intel import INTEL
from .nvidia import NVIDIA
from .vendor import Found, Prober, Visible, Way

own_builtins(globals())

LIMIT = 10.0
"""Seconds. NVML takes up to 1 s per GPU where the driver keeps no GPU awake (persistence mode),
and on a machine with confidential computing 6.6 s for its GPU (NVIDIA/nvtrust issue 113)."""

# Intel's GPUs are integrated more often than not: they must never win over others.
VENDORS = {each.name: each for each in (NVIDIA, AMD, ASCEND, INTEL)}
"""By name, in the order in which their GPUs are looked for."""

MASKS = frozenset(name for vendor in VENDORS.values() for name in vendor.masks)
"""The variables of all of them."""


def may_have_gpus(machine: Machine) -> bool:
    """Whether there is a sign of any."""
    return not all(vendor.absent(machine) for vendor in VENDORS.values())


def visible(fleet: Fleet, environ: Mapping[str, str]) -> Visible:
    """What the masks in `environ` leave of `fleet`."""
    if not fleet.devices:
        return Visible(fleet.vendor)
    return VENDORS[fleet.vendor].visible(fleet.devices, environ)


def detect(limit: float = LIMIT, machine: Machine | None = None) -> Fleet:
    """The GPUs of this machine, of the first vendor that has any.

    Every library and program of a vendor is asked in a process of its own; where there is no sign
    of a driver, none is started. Nothing is raised for what the machine does.

    :param limit: seconds for all of it.
    :param machine: where to look; given in tests.
    """
    deadline = time.monotonic() + limit
    machine = machine or Machine.here()
    absent = {name: vendor.absent(machine) for name, vendor in VENDORS.items()}
    search = _Search(machine, deadline)
    search.trail += [f"{name}: {reason}" for name, reason in absent.items() if reason]
    for name, reason in absent.items():
        devices = () if reason else search.devices(name)
        if devices:
            return Fleet(name, devices, tuple(search.trail), tuple(search.notices))
    return Fleet("", (), tuple(search.trail), tuple(search.notices))


class _Search:
    """Tries the ways of vendors, one after the other."""

    def __init__(self, machine: Machine, deadline: float) -> None:
        self._machine = machine
        self._deadline = deadline
        self.trail: list[str] = []
        self.notices: list[str] = []
        self._lost: set[str] = set()

    def devices(self, vendor: str) -> tuple[Device, ...]:
        ways = VENDORS[vendor].ways()
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
        # Most machines have no GPU, and should not pay for what asks about them.
        from ..throwaway import output_of

        def run(command: list[str]) -> str:
            left = deadline - time.monotonic()
            if left <= 0:
                raise FailedError("not asked, no time is left")
            return output_of(command, self._machine.environment(), left)

        try:
            found = way.find(Prober(self._machine, run))
        except MissingError as error:
            self.trail.append(f"{title}: {error}")
            return None
        except FailedError as error:
            self._lost.update(error.lost)
            self._notice(f"{title}: {error}")
            return None
        except Exception as error:  # noqa: BLE001 (no answer of a tool may end the run; it is told)
            self._notice(f"{title}: can't be understood ({type(error).__name__}: {error})")
            return None
        seconds = time.monotonic() - began
        self.trail.append(f"{title}: {len(found.devices)} found in {seconds:.2f} s")
        self.trail += [f"{title}: {line}" for line in found.notes]
        for line in found.notices:
            self._notice(f"{title}: {line}")
        return found

    def _notice(self, line: str) -> None:
        self.trail.append(line)
        self.notices.append(line)


def _with_node(machine: Machine, device: Device) -> Device:
    """With its NUMA node, if the kernel knows it (sysfs-bus-pci in the kernel's ABI documents)."""
    text = machine.text(f"sys/bus/pci/devices/{device.pci}/numa_node") if device.pci else ""
    node = number(text)
    return device if node is None else device._replace(node=node)
