"""NVIDIA's driver library, for a probe; called in a fresh interpreter.

Functions are those of the CUDA driver API reference; their suffixes are the ones that its header
gives them, cuda.h.
"""

from __future__ import annotations

from ctypes import byref, c_int, c_size_t, c_void_p, create_string_buffer
from typing import Any

from ..answers import MissingError
from ..machine import Machine
from .driver import TRIED_BYTES, Driver, Errors, Finding, Functions, Library, begin, try_out
from .nvml import ask_health

_LIBRARY = "libcuda.so.1"

ERRORS = Errors(  # CUresult, CUDA driver API reference, "Data types used by CUDA driver"
    sick={
        3: "CUDA_ERROR_NOT_INITIALIZED",  # by cuInit itself
        100: "CUDA_ERROR_NO_DEVICE",
        101: "CUDA_ERROR_INVALID_DEVICE",
        214: "CUDA_ERROR_ECC_UNCORRECTABLE",
        220: "CUDA_ERROR_NVLINK_UNCORRECTABLE",
        226: "CUDA_ERROR_CONTAINED",
        700: "CUDA_ERROR_ILLEGAL_ADDRESS",
        702: "CUDA_ERROR_LAUNCH_TIMEOUT",
        710: "CUDA_ERROR_ASSERT",
        714: "CUDA_ERROR_HARDWARE_STACK_ERROR",
        715: "CUDA_ERROR_ILLEGAL_INSTRUCTION",
        716: "CUDA_ERROR_MISALIGNED_ADDRESS",
        717: "CUDA_ERROR_INVALID_ADDRESS_SPACE",
        718: "CUDA_ERROR_INVALID_PC",
        719: "CUDA_ERROR_LAUNCH_FAILED",
        802: "CUDA_ERROR_SYSTEM_NOT_READY",
        999: "CUDA_ERROR_UNKNOWN",
    },
    unknown={
        2: "CUDA_ERROR_OUT_OF_MEMORY",
        34: "CUDA_ERROR_STUB_LIBRARY",
        46: "CUDA_ERROR_DEVICE_UNAVAILABLE",  # another process has it in exclusive mode
        102: "CUDA_ERROR_DEVICE_NOT_LICENSED",
        304: "CUDA_ERROR_OPERATING_SYSTEM",
        701: "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
        800: "CUDA_ERROR_NOT_PERMITTED",
        801: "CUDA_ERROR_NOT_SUPPORTED",
        803: "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        804: "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
        805: "CUDA_ERROR_MPS_CONNECTION_FAILED",
        806: "CUDA_ERROR_MPS_RPC_FAILURE",
        807: "CUDA_ERROR_MPS_SERVER_NOT_READY",
        808: "CUDA_ERROR_MPS_MAX_CLIENTS_REACHED",
        809: "CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED",
        810: "CUDA_ERROR_MPS_CLIENT_TERMINATED",
    },
)


def probe(root: str, expected: str, parent: str) -> dict[str, Any]:
    """Try the GPUs out, for :class:`.probe.Probe`.

    :param root: of the machine.
    :param expected: how many GPUs there should be.
    :param parent: pid of the process that started the probe.
    :raises MissingError: if there is no driver library, or one that lacks a function.
    """
    begin(parent)
    machine = Machine(root)
    if machine.lacks_library(_LIBRARY):
        raise MissingError(f"there is no {_LIBRARY}")
    found = try_out(Cuda(Library(_LIBRARY)), machine, int(expected))
    told = ask_health(machine, found.pci)
    if told.trouble and found.state != "sick":
        found = Finding("sick", told.trouble)
    return {"state": found.state, "reason": found.reason, "ecc": told.ecc}


class Cuda(Driver):
    """NVIDIA's."""

    name = "CUDA"
    errors = ERRORS
    functions = Functions(
        "cuInit", "cuDeviceGetCount", "cuDeviceGetPCIBusId", "cuMemAlloc_v2", "cuMemsetD8_v2",
        "cuCtxSynchronize", "cuMemFree_v2",
    )  # fmt: skip
    device_files = ("dev/nvidiactl", "dev/nvidia-uvm")

    def device(self, ordinal: int) -> c_int:
        device = c_int()
        self._call("cuDeviceGet", byref(device), ordinal)
        return device

    def open(self, ordinal: int) -> None:
        self._context = c_void_p()
        self._call("cuCtxCreate_v2", byref(self._context), 0, self.device(ordinal))

    def close(self) -> None:
        self._call("cuCtxDestroy_v2", self._context)

    def write(self, address: int, data: bytes) -> None:
        self._call("cuMemcpyHtoD_v2", c_void_p(address), data, c_size_t(len(data)))

    def read(self, address: int) -> bytes:
        data = create_string_buffer(TRIED_BYTES)
        self._call("cuMemcpyDtoH_v2", data, c_void_p(address), c_size_t(len(data)))
        return data.raw
