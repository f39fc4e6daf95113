"""Whether a GPU runtime is open in this process: none of them survives a fork."""

from __future__ import annotations

import re
import sys
from typing import Any, Iterable

from ..own import ctypes, own_builtins

own_builtins(globals())

CUDA_DRIVER = re.compile(r"/libcuda\.so[^/]*$")
_CUDA_NOT_INITIALIZED = 3  # CUresult, CUDA driver API reference

# CUDA opens nvidia-uvm and NVML does not; ROCm's runtime opens kfd; Level Zero opens a render node.
_DEVICE = re.compile(r"^/dev/(?:nvidia-uvm|kfd$|dri/renderD)")


def open_runtime(cuda_drivers: Iterable[str], targets: Iterable[str]) -> str:
    """The runtime that is open here, in words, or "".

    Asking loads and opens nothing. In a process forked from one with an open CUDA runtime, CUDA
    says that it is not initialized: ask before a fork, and :func:`in_bad_fork` afterwards.

    :param cuda_drivers: paths of the libraries of that name that are loaded.
    :param targets: what the descriptors of this process refer to.
    """
    for path in cuda_drivers:
        count = ctypes.c_int()
        if ctypes.CDLL(path).cuDeviceGetCount(ctypes.byref(count)) != _CUDA_NOT_INITIALIZED:
            return "an open CUDA runtime"
    for target in targets:
        if _DEVICE.match(target):
            return f"an open GPU device ({target})"
    backends = getattr(sys.modules.get("jax._src.xla_bridge"), "_backends", None)
    if backends:
        return f"open JAX backends ({', '.join(sorted(map(str, backends)))})"
    return ""


def in_bad_fork() -> str:
    """In a forked process: the library that finds its runtime unusable here, in words, or "".

    PyTorch notes it in a handler that runs in the child of each fork, so nobody else can tell.
    """
    for name in ("torch.cuda", "torch.xpu"):
        module: Any = sys.modules.get(name)
        ask = getattr(module, "_is_in_bad_fork", None)
        if ask is not None and ask():
            return f"a runtime that {name} can't use in a forked process"
    return ""
