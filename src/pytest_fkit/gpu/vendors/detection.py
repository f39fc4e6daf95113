"""Finding the GPUs of this machine, without a GPU context and without hanging."""

from __future__ import annotations

from typing import Callable

from ...own import own_builtins, time
from ..asking.machine import Machine
from ..devices import Fleet
from .signs import ABSENT

own_builtins(globals())

LIMIT = 10.0
"""Seconds. NVML takes up to 1 s per GPU where the driver keeps no GPU awake (persistence mode),
and on a machine with confidential computing 6.6 s for its GPU (NVIDIA/nvtrust issue 113)."""


def detect(
    limit: float = LIMIT,
    machine: Machine | None = None,
    kill: Callable[[int], None] | None = None,
) -> Fleet:
    """The GPUs of this machine, of the first vendor that has any.

    Every library and program of a vendor is asked in a process of its own; where there is no sign
    of a driver, none is started. Nothing is raised for what the machine does.

    :param limit: seconds for all of it.
    :param machine: where to look; given in tests.
    :param kill: how a process group is ended; given in tests.
    """
    deadline = time.monotonic() + limit
    machine = machine or Machine.here()
    absent = {vendor: reason(machine) for vendor, reason in ABSENT.items()}
    trail = [f"{vendor}: {reason}" for vendor, reason in absent.items() if reason]
    present = [vendor for vendor, reason in absent.items() if not reason]
    if not present:
        return Fleet("", (), tuple(trail))
    # Most machines have no GPU, and should not pay for what finds them.
    from .search import search

    return search(present, machine, deadline, trail, kill)
