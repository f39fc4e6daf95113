"""What a probe needs of a vendor's driver library, whichever it is."""

from __future__ import annotations

import ctypes
import os
from typing import Any, Mapping, NamedTuple, Protocol, Sequence

from ..asking.failures import MissingError
from ..asking.machine import Machine

SIZE = 1 << 20
"""Bytes that are written to each GPU: enough for a fill to be a kernel on all of it."""


class DriverError(Exception):
    """A call of a driver failed.

    :param call: the function.
    :param number: the error that it returned.
    """

    def __init__(self, call: str, number: int) -> None:
        super().__init__(call, number)
        self.call = call
        self.number = number


class Library:
    """A driver's library, whose functions return an error number, 0 for none.

    :raises MissingError: if it can't be loaded; there may be none.
    """

    def __init__(self, path: str) -> None:
        try:
            self._library = ctypes.CDLL(path)
        except OSError as error:
            raise MissingError(str(error)) from None
        self._path = path

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function.

        :raises DriverError: if that fails.
        :raises MissingError: if there is no such function.
        """
        function = getattr(self._library, name, None)
        if function is None:
            raise MissingError(f"{self._path} has no {name}")
        status = function(*arguments)
        if status:
            raise DriverError(name, status)


class Errors(NamedTuple):
    """What a driver's error numbers mean for a GPU that is asked for nothing special.

    :param sick: names of errors that say that the GPU can't be used.
    :param unknown: of those that say nothing about it: somebody else has it, or its memory; or the
        machine's set-up keeps us from it. Numbers in neither say nothing, too.
    """

    sick: Mapping[int, str]
    unknown: Mapping[int, str]

    def text(self, error: DriverError) -> str:
        """The error for people."""
        number = error.number
        name = self.sick.get(number) or self.unknown.get(number)
        return f"{error.call}: {name} ({number})" if name else f"{error.call}: error {number}"

    def state(self, error: DriverError) -> str:
        """What it makes of the GPU: "sick" or "unknown"."""
        return "sick" if error.number in self.sick else "unknown"


class Driver(Protocol):
    """What is needed of a vendor's driver. All calls raise DriverError."""

    name: str
    errors: Errors

    def start(self) -> int:
        """Initialize the driver; how many GPUs it shows."""

    def forbidden(self) -> str:
        """A device file of the driver that this process may not open, "" if there is none."""

    def pci(self, ordinal: int) -> str:
        """The PCI address of a GPU, as in "0000:41:00.0"."""

    def open(self, ordinal: int) -> None:
        """Begin to use a GPU."""

    def allocate(self, size: int) -> int:
        """The address of so many bytes of its memory."""

    def write(self, address: int, data: bytes) -> None:
        """Copy SIZE bytes to the GPU."""

    def fill(self, address: int, byte: int) -> None:
        """Set SIZE bytes of its memory."""

    def read(self, address: int) -> bytes:
        """SIZE bytes of its memory."""

    def synchronize(self) -> None:
        """Wait until the GPU has done all that was asked of it."""

    def free(self, address: int) -> None:
        """The opposite of :meth:`allocate`."""

    def close(self) -> None:
        """The opposite of :meth:`open`."""


def forbidden(machine: Machine, names: Sequence[str]) -> str:
    """The first of these files that is there and closed to this process, or ""."""
    found = (machine.path(name) for name in names if machine.exists(name))
    return next((path for path in found if not os.access(path, os.R_OK | os.W_OK)), "")
