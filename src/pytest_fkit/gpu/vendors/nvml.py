"""NVML, NVIDIA's library that tells of GPUs without opening a context on them.

Used in processes of its own: a driver in trouble can hang or crash who asks it. Through ctypes:
nvidia-ml-py may not be there. Functions, numbers and layouts are those of nvml.h, see the NVML API
reference.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Iterable, Sequence

from ...named_tuple import NamedTuple
from ...own import ctypes, os, own_builtins, time
from ..answers import FailedError, MissingError
from ..machine import Machine
from .driver import Count, Counter, DriverError, Library

own_builtins(globals())

LIBRARY = "libnvidia-ml.so.1"

_INSUFFICIENT_SIZE = 7  # NVML_ERROR_INSUFFICIENT_SIZE
_NOT_AVAILABLE = (1 << 64) - 1  # NVML_VALUE_NOT_AVAILABLE
_MIG_ENABLED = 1  # NVML_DEVICE_MIG_ENABLE
_NVLINK = 2  # NVML_P2P_CAPS_INDEX_NVLINK
_P2P_OK = 0  # NVML_P2P_STATUS_OK

# nvmlReturn_t: what the driver can't reach any more, or not before a reset.
_LOST = {15: "NVML_ERROR_GPU_IS_LOST", 16: "NVML_ERROR_RESET_REQUIRED"}

_RECOVERY_ACTION = 230  # NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
_ACTIONS = {  # nvmlDeviceGpuRecoveryAction_t; 0 is none
    1: "reset the GPU",
    2: "reboot the machine",
    3: "drain peer-to-peer traffic",
    4: "drain and reset the GPU",
    5: "recover the IMEX domain",
    6: "reset the bus",
    7: "reboot the system",
}

_UNCORRECTED = 1  # NVML_MEMORY_ERROR_TYPE_UNCORRECTED
_VOLATILE = 0  # NVML_VOLATILE_ECC: since the driver was loaded

INTERVAL = 0.1
"""Seconds between two samples; the driver itself measures utilisation over 1/6 to 1 s."""

UNTOLD = (DriverError, MissingError)
"""Raised by a call to which this driver, or an old one, has no answer."""

GpuHandle = ctypes.c_void_p
"""The handle of a GPU or a MIG instance."""


class _Memory(ctypes.Structure):  # nvmlMemory_t
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class _Pci(ctypes.Structure):  # nvmlPciInfo_t
    _fields_ = (
        ("bus_id_legacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("device_id", ctypes.c_uint),
        ("subsystem_id", ctypes.c_uint),
        ("bus_id", ctypes.c_char * 32),
    )


class _Process(ctypes.Structure):  # nvmlProcessInfo_v2_t, and v1_t of nvmlProcessInfo_t since 11.5
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class _FieldValue(ctypes.Structure):  # nvmlFieldValue_t
    _fields_ = (
        ("field_id", ctypes.c_uint),
        ("scope_id", ctypes.c_uint),
        ("timestamp", ctypes.c_longlong),
        ("latency", ctypes.c_longlong),
        ("value_type", ctypes.c_uint),
        ("status", ctypes.c_uint),
        ("value", ctypes.c_ulonglong),  # a union; the first four bytes of it are the action
    )


class Nvml(Library):
    """The library, initialised.

    All calls raise DriverError, or MissingError for a function
    that the driver does not have.

    :raises MissingError: if there is no library.
    :raises FailedError: if it can't be initialised, as when library and driver differ in version.
    """

    def __init__(self, machine: Machine) -> None:
        missing = f"there is no {LIBRARY}"
        if machine.lacks_library(LIBRARY):
            raise MissingError(missing)
        try:
            super().__init__(LIBRARY)
        except MissingError:
            raise MissingError(missing) from None
        self._library.nvmlErrorString.restype = ctypes.c_char_p
        try:
            self.call("nvmlInit_v2")
        except DriverError as error:
            raise FailedError(self.text(error)) from None

    def text(self, error: Exception) -> str:
        """What the library says of an error."""
        if not isinstance(error, DriverError):
            return str(error)
        said: bytes = self._library.nvmlErrorString(error.number)
        return said.decode("utf-8", "replace")

    def _number(self, name: str, *arguments: object) -> int:
        number = ctypes.c_uint()
        self.call(name, *arguments, ctypes.byref(number))
        return number.value

    def _handle(self, name: str, *arguments: object) -> GpuHandle:
        handle = GpuHandle()
        self.call(name, *arguments, ctypes.byref(handle))
        return handle

    def _string(self, name: str, gpu: GpuHandle) -> str:
        text = (ctypes.c_char * 96)()  # NVML_DEVICE_UUID_V2_BUFFER_SIZE, and of names
        self.call(name, gpu, text, ctypes.c_uint(len(text)))
        return text.value.decode("utf-8", "replace")

    def count(self) -> int:
        return self._number("nvmlDeviceGetCount_v2")

    def gpu(self, index: int) -> GpuHandle:
        """A GPU by NVML's number, which is that of PCI order."""
        return self._handle("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index))

    def by_uuid(self, uuid: str) -> GpuHandle:
        """A GPU, or a MIG instance."""
        return self._handle("nvmlDeviceGetHandleByUUID", uuid.encode())

    def by_pci(self, pci: str) -> GpuHandle:
        return self._handle("nvmlDeviceGetHandleByPciBusId_v2", pci.encode())

    def instances(self, gpu: GpuHandle) -> list[GpuHandle]:
        """The MIG instances of a GPU."""
        most = self._number("nvmlDeviceGetMaxMigDeviceCount", gpu)
        name = "nvmlDeviceGetMigDeviceHandleByIndex"
        found = (told(self._handle, name, gpu, ctypes.c_uint(index)) for index in range(most))
        return [each for each in found if each is not None]  # there may be fewer than `most`

    def instance_number(self, instance: GpuHandle) -> int:
        """The number of the GPU instance that a MIG instance belongs to."""
        return self._number("nvmlDeviceGetGpuInstanceId", instance)

    def uuid(self, gpu: GpuHandle) -> str:
        """As CUDA_VISIBLE_DEVICES takes it."""
        return self._string("nvmlDeviceGetUUID", gpu)

    def name(self, gpu: GpuHandle) -> str:
        return self._string("nvmlDeviceGetName", gpu)

    def pci(self, gpu: GpuHandle) -> str:
        """The PCI address, the domain in eight digits."""
        info = _Pci()
        self.call("nvmlDeviceGetPciInfo_v3", gpu, ctypes.byref(info))
        return str(info.bus_id.decode("ascii", "replace"))

    def memory(self, gpu: GpuHandle) -> _Memory:
        """How many bytes there are, and are in use."""
        memory = _Memory()
        self.call("nvmlDeviceGetMemoryInfo", gpu, ctypes.byref(memory))
        return memory

    def utilisation(self, gpu: GpuHandle) -> int:
        """Per cent of the time in which a kernel ran."""
        rates = (ctypes.c_uint * 2)()  # nvmlUtilization_t: of the GPU, of its memory
        self.call("nvmlDeviceGetUtilizationRates", gpu, ctypes.byref(rates))
        return rates[0]

    def is_in_mig_mode(self, gpu: GpuHandle) -> bool:
        """Whether only its MIG instances can be used."""
        current, pending = ctypes.c_uint(), ctypes.c_uint()
        self.call("nvmlDeviceGetMigMode", gpu, ctypes.byref(current), ctypes.byref(pending))
        return current.value == _MIG_ENABLED

    def have_nvlink(self, one: GpuHandle, other: GpuHandle) -> bool:
        """Whether there is NVLink between two GPUs, direct or by switches."""
        status = ctypes.c_int()
        self.call("nvmlDeviceGetP2PStatus", one, other, ctypes.c_int(_NVLINK), ctypes.byref(status))
        return status.value == _P2P_OK

    def processes(self, kind: str, gpu: GpuHandle) -> Sequence[_Process]:
        """The processes that use a GPU.

        :param kind: "Compute" or "Graphics".
        """
        try:  # drivers from 510 on
            return self._processes(f"nvmlDeviceGet{kind}RunningProcesses_v3", gpu)
        except MissingError:  # from 470 on
            return self._processes(f"nvmlDeviceGet{kind}RunningProcesses_v2", gpu)

    def _processes(self, name: str, gpu: GpuHandle) -> Sequence[_Process]:
        room = 32
        while True:
            number, found = ctypes.c_uint(room), (_Process * room)()
            try:
                self.call(name, gpu, ctypes.byref(number), found)
            except DriverError as error:
                if error.number != _INSUFFICIENT_SIZE or room > 1 << 14:
                    raise
                room = max(2 * room, number.value + 8)
            else:
                return found[: number.value]

    def recovery_action(self, gpu: GpuHandle) -> int:
        """A number of _ACTIONS, 0 for nothing, or if this NVML does not know."""
        field = _FieldValue(field_id=_RECOVERY_ACTION)
        self.call("nvmlDeviceGetFieldValues", gpu, ctypes.c_int(1), ctypes.byref(field))
        return 0 if field.status else field.value & 0xFFFFFFFF

    def uncorrected_errors(self, gpu: GpuHandle) -> int:
        """ECC errors since the driver was loaded."""
        count = ctypes.c_ulonglong()
        kinds = ctypes.c_int(_UNCORRECTED), ctypes.c_int(_VOLATILE)
        self.call("nvmlDeviceGetTotalEccErrors", gpu, *kinds, ctypes.byref(count))
        return count.value


def told(read: Callable[..., Any], *arguments: object) -> Any:
    """The value that a method reads; None from a GPU that does not have it, such as MIG."""
    try:
        return read(*arguments)
    except UNTOLD:
        return None


# --- health -------------------------------------------------------------------------------------


class NvmlHealth(NamedTuple):
    """What NVML says of the health of GPUs.

    :param trouble: why a GPU is sick, "" if none is known to be.
    :param ecc: by PCI address, uncorrected ECC errors since the driver was loaded.
    """

    trouble: str
    ecc: dict[str, int]


def ask_health(machine: Machine, pci: Iterable[str]) -> NvmlHealth:
    """Ask about GPUs; nothing is known where there is no NVML, or one that does not know."""
    try:
        nvml = Nvml(machine)
    except (MissingError, FailedError):
        return NvmlHealth("", {})
    trouble, ecc = "", {}
    for address in dict.fromkeys(pci):
        try:
            gpu = nvml.by_pci(address)
        except DriverError as error:
            said = _LOST.get(error.number, "")
        else:
            action = told(nvml.recovery_action, gpu)
            said = f"to {_ACTIONS.get(action, f'take action {action}')}" if action else ""
            count = told(nvml.uncorrected_errors, gpu)
            if count is not None:
                ecc[address] = count
        if said and not trouble:
            trouble = f"{address}: NVML says {said}"
    return NvmlHealth(trouble, ecc)


# --- memory -------------------------------------------------------------------------------------


class MemoryOfNvidiaGpus:
    """Finds what counts the memory of a GPU, see :class:`.vendor.Vendor`.

    :raises MissingError, FailedError: see :class:`Nvml`.
    """

    def __init__(self, machine: Machine) -> None:
        self._nvml = Nvml(machine)

    def find(self, uuid: str, pci: str) -> Counter:
        """The counter of a GPU's memory; one of the two names may be unknown.

        :raises FailedError: if there is no such GPU.
        """
        if not uuid and not pci:
            raise FailedError("neither its UUID nor its PCI address is known")
        find, name = (self._nvml.by_uuid, uuid) if uuid else (self._nvml.by_pci, pci)
        gpu = self._succeed(find, name)
        return lambda: self._succeed(self._count, gpu)

    def _succeed(self, read: Callable[[Any], Any], what: Any) -> Any:
        try:
            return read(what)
        except UNTOLD as error:
            raise FailedError(f"NVML: {self._nvml.text(error)}") from None

    def _count(self, gpu: GpuHandle) -> Count:
        memory = self._nvml.memory(gpu)
        computing = told(self._nvml.processes, "Compute", gpu)
        drawing = told(self._nvml.processes, "Graphics", gpu)
        named = computing is not None
        processes: dict[int, int] = {}
        for process in (*(computing or ()), *(drawing or ())):
            if process.used == _NOT_AVAILABLE:
                named = False
            else:  # it may be among both
                processes[process.pid] = max(processes.get(process.pid, 0), process.used)
        return Count(memory.total, memory.free, processes, named)


# --- samples ------------------------------------------------------------------------------------


def sample(root: str, descriptor: str, parent: str, *uuids: str) -> None:
    """Write a line of JSON whenever something has changed, as long as the parent is there.

    ``{"wall": seconds since the epoch, "mono": seconds, "used": [[bytes, per cent], ...]}``, in the
    order of the UUIDs, None for what a GPU does not tell; or ``{"error": text}`` as the last.

    :param parent: the pid of the process that reads it.
    :param uuids: of GPUs and MIG instances.
    """
    try:
        nvml = Nvml(Machine(root))
    except (MissingError, FailedError) as error:
        append_line(int(descriptor), error=str(error))
        return
    try:
        gpus = [nvml.by_uuid(uuid) for uuid in uuids]
    except DriverError as error:
        append_line(int(descriptor), error=nvml.text(error))
        return
    last = None
    while os.getppid() == int(parent):
        used = [_use_of(nvml, gpu) for gpu in gpus]
        if used != last:
            wall, mono = round(time.time(), 6), round(time.monotonic(), 6)
            append_line(int(descriptor), wall=wall, mono=mono, used=used)
            last = used
        time.sleep(INTERVAL)


def _use_of(nvml: Nvml, gpu: GpuHandle) -> list[int | None]:
    # A GPU may have fallen off the bus, or have no memory of its own; MIG instances don't know how
    # busy they are.
    memory = told(nvml.memory, gpu)
    return [memory and memory.used, told(nvml.utilisation, gpu)]


def append_line(descriptor: int, **fields: object) -> None:
    """Append JSON to a file, by one call: a line is there as a whole, or not."""
    os.write(descriptor, json.dumps(fields).encode() + b"\n")
