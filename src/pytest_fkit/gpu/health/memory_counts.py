"""How much memory of GPUs is in use, and which processes have it, as their driver counts it.

Called in a process of its own: a driver in trouble may hang who asks. Functions, numbers and
layouts of NVIDIA's are those of nvml.h, see the NVML API reference; AMD's are files of sysfs:
``mem_info_vram_*`` of the device (amdgpu_vram_mgr.c in the Linux kernel), and for each process
``kfd/proc/<pid>/vram_<gpu_id>`` (kfd_process.c).
"""

from __future__ import annotations

import ctypes
from typing import Any, Callable, NamedTuple, Sequence

from ..asking.machine import Machine
from ..vendors.kfd import gpu_ids

_LIBRARY = "libnvidia-ml.so.1"
_INSUFFICIENT_SIZE = 7  # NVML_ERROR_INSUFFICIENT_SIZE
_NOT_AVAILABLE = (1 << 64) - 1  # NVML_VALUE_NOT_AVAILABLE
_PROCESSES = "sys/class/kfd/kfd/proc"


class UncountedError(Exception):
    """Nobody tells how much memory is in use. The text says why."""


class Count(NamedTuple):
    """The memory of one GPU, in bytes.

    :param processes: those that the driver names, by pid, with what each has.
    :param named: whether it does name those that have memory.
    """

    total: int
    free: int
    processes: dict[int, int]
    named: bool = True


class _Memory(ctypes.Structure):  # nvmlMemory_t
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class _Process(ctypes.Structure):  # nvmlProcessInfo_v2_t, and v1_t of nvmlProcessInfo_t since 11.5
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


Counter = Callable[[], Count]
"""Looks at one GPU; raises UncountedError."""


def counter(machine: Machine, vendor: str) -> Callable[[str, str], Counter]:
    """What finds a GPU, by UUID and PCI address, one of which may be unknown.

    :param vendor: as in :mod:`.devices`.
    :raises UncountedError: if nobody can be asked.
    """
    if vendor == "nvidia":
        return _Nvml(machine).find
    if vendor == "amd":
        return _Sysfs(machine).find
    raise UncountedError("nobody is known who tells for these GPUs")


class _Nvml:
    def __init__(self, machine: Machine) -> None:
        try:
            if machine.lacks_library(_LIBRARY):
                raise OSError
            self._nvml: Any = ctypes.CDLL(_LIBRARY)
        except OSError:
            raise UncountedError(f"there is no {_LIBRARY}") from None
        self._nvml.nvmlErrorString.restype = ctypes.c_char_p
        self._succeed(self._nvml.nvmlInit_v2())

    def find(self, uuid: str, pci: str) -> Counter:
        gpu = ctypes.c_void_p()
        if uuid:
            status = self._nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(gpu))
        elif pci:
            status = self._nvml.nvmlDeviceGetHandleByPciBusId_v2(pci.encode(), ctypes.byref(gpu))
        else:
            raise UncountedError("neither its UUID nor its PCI address is known")
        self._succeed(status)
        return lambda: self._count(gpu)

    def _count(self, gpu: ctypes.c_void_p) -> Count:
        memory = _Memory()
        self._succeed(self._nvml.nvmlDeviceGetMemoryInfo(gpu, ctypes.byref(memory)))
        processes: dict[int, int] = {}
        computing = self._processes("Compute", gpu)
        named = computing is not None
        for process in (*(computing or ()), *(self._processes("Graphics", gpu) or ())):
            if process.used == _NOT_AVAILABLE:
                named = False
            else:  # it may be among both
                processes[process.pid] = max(processes.get(process.pid, 0), process.used)
        return Count(memory.total, memory.free, processes, named)

    def _processes(self, kind: str, gpu: ctypes.c_void_p) -> Sequence[_Process] | None:
        for version in ("_v3", "_v2"):  # drivers from 510 on; from 470 on
            ask = getattr(self._nvml, f"nvmlDeviceGet{kind}RunningProcesses{version}", None)
            if ask is None:
                continue
            room = 32
            while True:
                number, found = ctypes.c_uint(room), (_Process * room)()
                status = ask(gpu, ctypes.byref(number), found)
                if status != _INSUFFICIENT_SIZE or room > 1 << 14:
                    return found[: number.value] if status == 0 else None
                room = max(2 * room, number.value + 8)
        return None

    def _succeed(self, status: int) -> None:
        if status:
            raise UncountedError(f"NVML: {self._nvml.nvmlErrorString(status).decode()}")


class _Sysfs:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._ids = gpu_ids(machine.root)

    def find(self, uuid: str, pci: str) -> Counter:
        del uuid
        ids = self._ids.get(pci, [])
        if len(ids) > 1:
            raise UncountedError("it is a partition, of which the driver does not count it")
        return lambda: self._count(pci, ids)

    def _count(self, pci: str, ids: Sequence[str]) -> Count:
        device = f"sys/bus/pci/devices/{pci}"
        total, used = (
            self._machine.text(f"{device}/mem_info_vram_{name}").strip()
            for name in ("total", "used")
        )
        if not pci or not (total.isdigit() and used.isdigit()):
            raise UncountedError(f"{device}/mem_info_vram_used can't be read")
        processes: dict[int, int] = {}
        for pid in self._machine.names(_PROCESSES, r"\d{1,9}"):
            texts = (self._machine.text(f"{_PROCESSES}/{pid}/vram_{gpu}").strip() for gpu in ids)
            found = sum(int(text) for text in texts if text.isdigit())
            if found:
                processes[int(pid)] = found
        named = bool(ids) and self._machine.exists(_PROCESSES)
        return Count(int(total), int(total) - int(used), processes, named)
