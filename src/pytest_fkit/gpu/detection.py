"""Finding the GPUs of this machine, without a GPU context and without hanging."""

from __future__ import annotations

import importlib
import time

from .devices import Device, Fleet
from .failures import FailedError, MissingError
from .machine import Machine
from .signs import ABSENT
from .throwaway import Kill, kill_group, output_of
from .ways import Found, Prober, Way

LIMIT = 10.0
"""Seconds. NVML takes up to 1 s per GPU where the driver keeps no GPU awake (persistence mode),
and on a machine with confidential computing 6.6 s for its GPU (NVIDIA/nvtrust issue 113)."""


def detect(limit: float = LIMIT, machine: Machine | None = None, kill: Kill = kill_group) -> Fleet:
    """The GPUs of this machine, of the first vendor that has any.

    Every library and program of a vendor is asked in a process of its own; where the kernel has
    no driver of theirs, none is started. Nothing is raised for what the machine does.

    :param limit: seconds for all of it.
    :param machine: where to look; given in tests.
    :param kill: how a process group is ended; given in tests.
    """
    search = _Search(machine or Machine.here(), time.monotonic() + limit, kill)
    for vendor in ABSENT:
        devices = search.devices(vendor)
        if devices:
            return Fleet(vendor, devices, tuple(search.trail), tuple(search.notices))
    return Fleet("", (), tuple(search.trail), tuple(search.notices))


class _Search:
    def __init__(self, machine: Machine, deadline: float, kill: Kill) -> None:
        self._machine = machine
        self._deadline = deadline
        self._kill = kill
        self.trail: list[str] = []
        self.notices: list[str] = []

    def devices(self, vendor: str) -> tuple[Device, ...]:
        absent = ABSENT[vendor](self._machine)
        if absent:
            self._note(f"{vendor}: {absent}")
            return ()
        ways: tuple[Way, ...] = importlib.import_module(f"{__package__}.{vendor}").WAYS
        for number, way in enumerate(ways, 1):
            # A way that hangs must leave time to those after it; a driver that hangs one usually
            # hangs the next as well, so it is the first that has to have enough.
            left = self._deadline - time.monotonic()
            share = left if number == len(ways) else left / 2
            found = self._try(f"{vendor}: {way.name}", way, share)
            if found is not None:
                return found.devices
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
