"""What NVML says about the health of NVIDIA's GPUs; called in a fresh interpreter.

Through ctypes, since a probe has to do without nvidia-ml-py. Functions, numbers and layouts are
those of nvml.h, see the NVML API reference.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple, Sequence

from ..asking.machine import Machine

_LIBRARY = "libnvidia-ml.so.1"

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


class NvmlHealth(NamedTuple):
    """What NVML says.

    :param trouble: why a GPU is sick, "" if none is known to be.
    :param ecc: by PCI address, uncorrected ECC errors since the driver was loaded.
    """

    trouble: str
    ecc: dict[str, int]


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


def ask_health(machine: Machine, pci: Sequence[str]) -> NvmlHealth:
    """Ask about GPUs; nothing is known where there is no NVML, or one that does not know.

    :param pci: their addresses.
    """
    trouble, ecc = "", {}
    nvml = _load(machine)
    if nvml is not None and nvml.nvmlInit_v2() == 0:
        for address in dict.fromkeys(pci):
            gpu = ctypes.c_void_p()
            status = nvml.nvmlDeviceGetHandleByPciBusId_v2(address.encode(), ctypes.byref(gpu))
            text = _LOST.get(status, "") if status else _action(nvml, gpu)
            if text and not trouble:
                trouble = f"{address}: NVML says {text}"
            count = ctypes.c_ulonglong()
            if status == 0 and _count_errors(nvml, gpu, count) == 0:
                ecc[address] = count.value
        nvml.nvmlShutdown()
    return NvmlHealth(trouble, ecc)


def _load(machine: Machine) -> Any:
    if machine.lacks_library(_LIBRARY):
        return None
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        return None


def _action(nvml: Any, gpu: ctypes.c_void_p) -> str:
    """What has to be done with a GPU, "" for nothing, or if this NVML does not know."""
    field = _FieldValue(field_id=_RECOVERY_ACTION)
    if nvml.nvmlDeviceGetFieldValues(gpu, 1, ctypes.byref(field)) or field.status:
        return ""
    action = field.value & 0xFFFFFFFF
    return f"to {_ACTIONS.get(action, f'take action {action}')}" if action else ""


def _count_errors(nvml: Any, gpu: ctypes.c_void_p, count: ctypes.c_ulonglong) -> int:
    return int(nvml.nvmlDeviceGetTotalEccErrors(gpu, _UNCORRECTED, _VOLATILE, ctypes.byref(count)))
