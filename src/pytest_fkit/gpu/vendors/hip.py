"""AMD's runtime library, for a probe; called in a fresh interpreter.

Functions are those of the HIP runtime API reference.
"""

from __future__ import annotations

import re
from ctypes import c_size_t, c_void_p, create_string_buffer
from typing import Any, Iterator, Mapping, Sequence

from ...own import os, own_builtins
from ..answers import MissingError
from ..machine import Machine
from .driver import TRIED_BYTES, Driver, Errors, Functions, Library, begin, try_out

own_builtins(globals())

_LIBRARY = "libamdhip64.so"
"""Its name, to which sonames append a number."""

_MAJORS = range(9, 3, -1)
"""Major versions of ROCm, and so of the library's soname; 7 is the newest known."""

_TO_DEVICE, _TO_HOST = 1, 2  # hipMemcpyKind

ERRORS = Errors(  # hipError_t, hip_runtime_api.h
    sick={
        3: "hipErrorNotInitialized",  # by hipInit itself
        100: "hipErrorNoDevice",
        101: "hipErrorInvalidDevice",
        214: "hipErrorECCNotCorrectable",
        700: "hipErrorIllegalAddress",
        702: "hipErrorLaunchTimeOut",
        710: "hipErrorAssert",
        719: "hipErrorLaunchFailure",
        999: "hipErrorUnknown",
    },
    unknown={
        2: "hipErrorOutOfMemory",
        35: "hipErrorInsufficientDriver",
        98: "hipErrorInvalidDeviceFunction",  # this ROCm does not know the model
        209: "hipErrorNoBinaryForGpu",  # the same
        304: "hipErrorOperatingSystem",
        701: "hipErrorLaunchOutOfResources",
        801: "hipErrorNotSupported",
        1052: "hipErrorRuntimeMemory",
        1053: "hipErrorRuntimeOther",
    },
)


def probe(root: str, expected: str, parent: str, wheels: str) -> dict[str, Any]:
    """Try the GPUs out, for :class:`.probe.Probe`.

    :param wheels: what :func:`.amd.wheel_directories` found, with ":" between.
    :raises MissingError: if there is no library, or one that lacks a function.
    """
    begin(parent)
    machine = Machine(root)
    found = try_out(Hip(_load(machine, wheels)), machine, int(expected))
    return {"state": found.state, "reason": found.reason, "ecc": {}}


def _load(machine: Machine, wheels: str) -> Library:
    for path in candidates(machine, os.environ, wheels.split(os.pathsep)):
        try:
            return Library(path)
        except MissingError:
            continue
    raise MissingError(f"there is no {_LIBRARY} that can be loaded")


def candidates(
    machine: Machine, environ: Mapping[str, str], wheels: Sequence[str]
) -> Iterator[str]:
    """The libraries to try, best first: the user's, the loader's, those of Python packages.

    :param wheels: directories.
    """
    yield from _libraries(environ.get("ROCM_PATH", ""), "lib")
    for major in _MAJORS:
        if not machine.lacks_library(f"{_LIBRARY}.{major}"):
            yield f"{_LIBRARY}.{major}"
    yield from _libraries(machine.path("opt/rocm"), "lib")
    for directory in wheels:
        yield from _libraries(directory, "")


def _libraries(base: str, below: str) -> list[str]:
    """The libraries in a directory: the newest soname, then the name without a number."""
    if not base:
        return []
    directory = os.path.join(base, below)
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    matches = [re.fullmatch(r"libamdhip64\.so(?:\.(\d+))?", name) for name in names]
    found = [(int(match[1] or 0), match[0]) for match in matches if match]
    return [os.path.join(directory, name) for _, name in sorted(found, reverse=True)]


class Hip(Driver):
    """AMD's."""

    name = "HIP"
    errors = ERRORS
    functions = Functions(
        "hipInit", "hipGetDeviceCount", "hipDeviceGetPCIBusId", "hipMalloc", "hipMemset",
        "hipDeviceSynchronize", "hipFree",
    )  # fmt: skip
    device_files = ("dev/kfd",)

    def open(self, ordinal: int) -> None:
        self._call("hipSetDevice", ordinal)

    def close(self) -> None:
        self._call("hipDeviceReset")

    def write(self, address: int, data: bytes) -> None:
        self._call("hipMemcpy", c_void_p(address), data, c_size_t(len(data)), _TO_DEVICE)

    def read(self, address: int) -> bytes:
        data = create_string_buffer(TRIED_BYTES)
        self._call("hipMemcpy", data, c_void_p(address), c_size_t(len(data)), _TO_HOST)
        return data.raw
