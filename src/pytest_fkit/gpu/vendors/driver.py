"""A vendor's driver library, and trying GPUs out through it.

Called in a process of its own, see probe.py: a driver may hang, or abort the process.
"""

from __future__ import annotations

from typing import Callable, Mapping, Sequence

from ... import system
from ...named_tuple import NamedTuple
from ...own import ctypes, os, own_builtins, resource
from ..answers import MissingError
from ..machine import Machine

own_builtins(globals())

TRIED_BYTES = 1 << 20
"""Bytes that are written to each GPU: enough for a fill to be a kernel on all of it."""

_FILL = 0xA5


class DriverError(Exception):
    """A call of a driver failed.

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

    def call(self, name: str, *arguments: object) -> None:
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


# --- memory -------------------------------------------------------------------------------------


class Count(NamedTuple):
    """The memory of one GPU, in bytes.

    :param processes: those that the driver names, by pid, with what each has.
    :param named: whether it does name those that have memory.
    """

    total: int
    free: int
    processes: dict[int, int]
    named: bool = True


Counter = Callable[[], Count]
"""Counts the memory of one GPU; raises FailedError where nobody can tell."""


# --- probes -------------------------------------------------------------------------------------


class Errors(NamedTuple):
    """What a driver's error numbers mean for a GPU that is asked for nothing special.

    :param sick: names of errors that say that the GPU can't be used.
    :param unknown: names of errors that say nothing about the GPU: somebody else has it, or its
        memory, or the machine's set-up keeps us from it. Numbers in neither say nothing, too.
    """

    sick: Mapping[int, str]
    unknown: Mapping[int, str]

    def text(self, error: DriverError) -> str:
        """The error for people."""
        number = error.number
        name = self.sick.get(number) or self.unknown.get(number)
        return f"{error.call}: {name} ({number})" if name else f"{error.call}: error {number}"

    def state(self, error: DriverError) -> str:
        """The state of a GPU after the error: "sick" or "unknown"."""
        return "sick" if error.number in self.sick else "unknown"


class Functions(NamedTuple):
    """Names of functions that all drivers have, with the same arguments."""

    init: str
    number: str
    pci: str
    allocate: str
    fill: str
    synchronize: str
    free: str


class Driver:
    """A vendor's driver, as a probe uses it. All calls raise DriverError."""

    name: str
    errors: Errors
    functions: Functions
    device_files: tuple[str, ...]
    """The files that a process has to open to use any GPU, as in "dev/kfd"."""

    def __init__(self, library: Library) -> None:
        self._call = library.call

    def start(self) -> int:
        """Initialize the driver; how many GPUs it shows."""
        count = ctypes.c_int()
        self._call(self.functions.init, 0)
        self._call(self.functions.number, ctypes.byref(count))
        return count.value

    def device(self, ordinal: int) -> ctypes.c_int:
        """The driver's handle of a GPU."""
        return ctypes.c_int(ordinal)

    def pci(self, ordinal: int) -> str:
        """The PCI address of a GPU, as in "0000:41:00.0"."""
        text = (ctypes.c_char * 32)()
        self._call(self.functions.pci, text, len(text), self.device(ordinal))
        return text.value.decode("ascii", "replace").lower()

    def open(self, ordinal: int) -> None:
        """Begin to use a GPU."""
        raise NotImplementedError

    def close(self) -> None:
        """The opposite of :meth:`open`."""
        raise NotImplementedError

    def allocate(self) -> int:
        """The address of TRIED_BYTES bytes of the GPU's memory."""
        address = ctypes.c_void_p()
        self._call(self.functions.allocate, ctypes.byref(address), ctypes.c_size_t(TRIED_BYTES))
        return address.value or 0

    def write(self, address: int, data: bytes) -> None:
        """Copy TRIED_BYTES bytes to the GPU."""
        raise NotImplementedError

    def read(self, address: int) -> bytes:
        """Copy TRIED_BYTES bytes from the GPU."""
        raise NotImplementedError

    def fill(self, address: int, byte: int) -> None:
        """Set TRIED_BYTES bytes of the GPU's memory, and wait until that is done."""
        size = ctypes.c_size_t(TRIED_BYTES)
        self._call(self.functions.fill, ctypes.c_void_p(address), byte, size)
        self._call(self.functions.synchronize)

    def free(self, address: int) -> None:
        """The opposite of :meth:`allocate`."""
        self._call(self.functions.free, ctypes.c_void_p(address))


class WrongDataError(Exception):
    """A GPU did not give back what was written to it. Its text says how."""


class Finding(NamedTuple):
    """The result of a trial.

    :param state: "healthy", "sick" or "unknown".
    :param reason: why, "" if healthy.
    :param pci: addresses of the GPUs that could be opened.
    """

    state: str
    reason: str
    pci: tuple[str, ...] = ()


_ORDER = ("sick", "unknown", "healthy")


def begin(parent: str) -> None:
    """Make this process end with its parent, and leave no core file if the driver aborts it."""
    system.die_with_parent(int(parent))
    # ROCm may take minutes to write one.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def try_out(driver: Driver, machine: Machine, expected: int) -> Finding:
    """Use each GPU that the driver shows.

    :param expected: how many it should show at least.
    """
    try:
        count = driver.start()
    except DriverError as error:
        found = Finding(driver.errors.state(error), driver.errors.text(error))
    else:
        if count >= expected:
            return _worst([_try_one(driver, ordinal) for ordinal in range(count)])
        found = Finding("sick", f"{driver.name} shows {count} of {expected} GPUs")
    # Drivers say that there is no GPU to those to whom a device file is closed.
    closed = forbidden(machine, driver.device_files)
    return Finding("unknown", f"no permission to open {closed}") if closed else found


def forbidden(machine: Machine, names: Sequence[str]) -> str:
    """The first of these files that is there and closed to this process, or ""."""
    found = (machine.path(name) for name in names if machine.exists(name))
    return next((path for path in found if not os.access(path, os.R_OK | os.W_OK)), "")


def _worst(found: Sequence[Finding]) -> Finding:
    worst = min(found, key=lambda each: _ORDER.index(each.state), default=Finding("healthy", ""))
    return worst._replace(pci=tuple(address for each in found for address in each.pci))


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
    written = os.urandom(TRIED_BYTES)
    address = driver.allocate()
    driver.write(address, written)
    _compare("what was written to it", written, driver.read(address))
    driver.fill(address, _FILL)
    _compare("what it filled its memory with", bytes([_FILL]) * TRIED_BYTES, driver.read(address))
    driver.free(address)


def _compare(what: str, expected: bytes, read: bytes) -> None:
    if read != expected:
        wrong = sum(1 for one, other in zip(expected, read) if one != other)
        raise WrongDataError(f"{what} reads back wrong in {wrong} of {len(expected)} bytes")
