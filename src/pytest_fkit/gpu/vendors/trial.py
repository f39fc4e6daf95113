"""Trying GPUs out through their vendor's driver, whichever it is.

Called in a process of its own, see probe.py: a driver may hang, or abort the process.
"""

from __future__ import annotations

import os
import resource
from typing import NamedTuple

from ... import system
from .driver import SIZE, Driver, DriverError

_FILL = 0xA5


class WrongDataError(Exception):
    """A GPU did not give back what was written to it. Its text says how."""


def begin(parent: str) -> None:
    """Make this process end with its parent, and leave no core file if the driver aborts it.

    :param parent: pid.
    """
    system.die_with_parent(int(parent))
    # ROCm may take minutes to write one.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


class Finding(NamedTuple):
    """What a trial tells.

    :param state: "healthy", "sick" or "unknown".
    :param reason: why, "" if healthy.
    :param pci: addresses of the GPUs that could be opened.
    """

    state: str
    reason: str
    pci: tuple[str, ...] = ()


def try_out(driver: Driver, expected: int) -> Finding:
    """Use each GPU that the driver shows.

    :param expected: how many it should show at least.
    """
    try:
        count = driver.start()
    except DriverError as error:
        return _not_started(driver, error)
    if count < expected:
        missing = Finding("sick", f"{driver.name} shows {count} of {expected} GPUs")
        return _closed(driver) or missing
    found = [_try_one(driver, ordinal) for ordinal in range(count)]
    worst = min(found, key=lambda each: _ORDER.index(each.state), default=Finding("healthy", ""))
    return worst._replace(pci=tuple(address for each in found for address in each.pci))


_ORDER = ("sick", "unknown", "healthy")


def _closed(driver: Driver) -> Finding | None:
    # To whom a device file is closed, drivers say that there is no GPU.
    path = driver.forbidden()
    return Finding("unknown", f"no permission to open {path}") if path else None


def _not_started(driver: Driver, error: DriverError) -> Finding:
    failed = Finding(driver.errors.state(error), driver.errors.text(error))
    return _closed(driver) or failed


def _try_one(driver: Driver, ordinal: int) -> Finding:
    pci = ""
    try:
        pci = driver.pci(ordinal)
        driver.open(ordinal)
        _use(driver)
        driver.close()
    except DriverError as error:
        state, reason = driver.errors.state(error), driver.errors.text(error)
    except WrongDataError as error:
        state, reason = "sick", str(error)
    else:
        return Finding("healthy", "", (pci,))
    where = f"device {ordinal} ({pci})" if pci else f"device {ordinal}"
    return Finding(state, f"{where}: {reason}", (pci,) if pci else ())


def _use(driver: Driver) -> None:
    written = os.urandom(SIZE)
    address = driver.allocate(SIZE)
    driver.write(address, written)
    _compare("what was written to it", written, driver.read(address))
    driver.fill(address, _FILL)
    driver.synchronize()
    _compare("what it filled its memory with", bytes([_FILL]) * SIZE, driver.read(address))
    driver.free(address)


def _compare(what: str, expected: bytes, read: bytes) -> None:
    if read != expected:
        wrong = sum(1 for one, other in zip(expected, read) if one != other)
        raise WrongDataError(f"{what} reads back wrong in {wrong} of {len(expected)} bytes")
