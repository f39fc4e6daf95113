"""``fleet_torch``: what suites on a machine that does not exist import as they would PyTorch.

It reads the environment and ``fleet.json`` at import (SEEN) and at each call, so that a GPU can
break, or heal, in the middle of a run, and needs nothing but the standard library. On NVIDIA GPUs
what is wrong is raised, on AMD's a broken GPU ends the process, as in real life:

- "missing": the masks end before it; without any, nothing is available;
- "busy", "full": contexts, allocations fail;
- "sick": an uncorrectable error, for good in this process; on AMD a hang that aborts it;
- "lost": an unknown error; "corrupt": :func:`launch` returns something else; "hung":
  :func:`synchronize` does not return.

Messages are those of PyTorch 2.8 and of ROCr (core/runtime/runtime.cpp) as people quote them in
issues: pytorch#152023, ROCm#4021.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from fleet_state import count_call  # type: ignore[import-not-found]  # beside this file there


class AcceleratorError(RuntimeError):
    """torch.AcceleratorError."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.error_code = code


class OutOfMemoryError(RuntimeError):
    """torch.OutOfMemoryError."""


for _error in (AcceleratorError, OutOfMemoryError):
    _error.__module__ = "torch"

# cudaGetErrorString; hipGetErrorString says the same of what both have.
_TEXTS = {
    1: "invalid argument",
    2: "out of memory",
    46: "CUDA-capable device(s) is/are busy or unavailable",
    101: "invalid device ordinal",
    214: "uncorrectable ECC error encountered",
    700: "an illegal memory access was encountered",
    710: "device-side assert triggered",
    719: "unspecified launch failure",
    999: "unknown error",
}
_STICKY = {214, 700, 710, 719, 999}
_CODES = {"busy": 46, "sick": 214, "lost": 999}
FAULTS = {"argument": 1, "illegal": 700, "assert": 710}
"""What :func:`launch` can be told that a kernel does wrong."""

_root = Path(os.environ["FKIT_FLEET_ROOT"])
_opened: Any = None
_owner = 0
_sticky = 0


def device_count() -> int:
    """How many GPUs the masks leave, asked anew; opens nothing, as with NVML."""
    return len(_visible())


def is_available() -> bool:
    """Whether there is one."""
    return device_count() > 0


def alloc(mib: int = 1, device: int = 0) -> int:
    """Allocate; returns `mib`."""
    gpu = _use(device)
    if gpu["state"] == "full":
        raise OutOfMemoryError(
            f"{_name(gpu)} out of memory. Tried to allocate {mib}.00 MiB. GPU {device} has a total "
            f"capacity of {gpu['memory'] / 2**30:.2f} GiB of which 0.00 MiB is free. Process 4711 "
            f"has {gpu['memory'] / 2**30:.2f} GiB memory in use."
        )
    return mib


def launch(value: int = 42, device: int = 0, fault: str = "") -> int:
    """Compute something, which is `value`.

    :param fault: one of FAULTS: the kernel's own, on whatever GPU.
    """
    gpu = _use(device)
    if fault == "illegal" and gpu["vendor"] == "amd":
        where = f"Memory access fault by GPU node-{gpu['node']} (Agent handle: 0x55b017570c40)"
        reason = "Page not present or supervisor privilege."
        _abort(f"{where} on address 0x7fcd499e6000. Reason: {reason}")
    if fault:
        _fail(gpu, FAULTS[fault])
    return value ^ 0x10 if gpu["state"] == "corrupt" else value


def synchronize(device: int = 0) -> None:
    """Wait for the GPU."""
    if _use(device)["state"] == "hung":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()


def _use(device: int) -> dict[str, Any]:
    """The GPU, if it can be used: what every call begins with."""
    visible = _visible()
    _open_runtime()
    if not visible:
        raise RuntimeError(f"No {'HIP' if _vendor() == 'amd' else 'CUDA'} GPUs are available")
    if device >= len(visible):
        _fail(visible[0], 101)
    gpu = {**visible[device], "state": count_call(_root, visible[device]["ordinal"])}
    if _sticky:
        _fail(gpu, _sticky)
    if gpu["state"] == "sick" and gpu["vendor"] == "amd":
        agent = f"HW Exception by GPU node-{gpu['node']} (Agent handle: 0x631351bb5a20)"
        _abort(f"{agent} reason :GPU Hang")
    if gpu["state"] in _CODES:
        _fail(gpu, _CODES[gpu["state"]])
    return gpu


def _open_runtime() -> None:
    """What is open now does not survive a fork, and can be seen to be open."""
    global _opened, _owner
    if not _owner:
        _owner = os.getpid()
        _opened = (_root / f"runtime-{_owner}").open("w")
    if _owner != os.getpid():
        raise RuntimeError(
            "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you "
            "must use the 'spawn' start method"
        )


def _fail(gpu: dict[str, Any], code: int) -> None:
    global _sticky
    _sticky = code if code in _STICKY else _sticky
    raise AcceleratorError(
        f"{_name(gpu)} error: {_TEXTS[code]}\n"
        f"{_name(gpu)} kernel errors might be asynchronously reported at some other API call, so "
        "the stacktrace below might be incorrect.\n"
        "For debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
        "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n",
        code,
    )


def _abort(text: str) -> None:
    sys.stdout.flush()
    os.write(2, f"{text}\n".encode())
    os.abort()


def _name(gpu: dict[str, Any]) -> str:
    return "HIP" if gpu["vendor"] == "amd" else "CUDA"


def _vendor() -> str:
    gpus = _description()
    return gpus[0]["vendor"] if gpus else "nvidia"


def _description() -> list[dict[str, Any]]:
    gpus: list[dict[str, Any]] = json.loads((_root / "fleet.json").read_text())["gpus"]
    return gpus


def _visible() -> list[dict[str, Any]]:
    """The GPUs that the masks leave, each up to the first entry that names none."""
    amd = _vendor() == "amd"
    order = "ordinal" if amd or os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" else "fastest"
    found = sorted(_description(), key=lambda gpu: int(gpu[order]))
    first, second = "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"
    if not amd or second not in os.environ:
        second = "CUDA_VISIBLE_DEVICES"
    for name in (first, second) if amd else (second,):
        if name in os.environ:
            found = _picked(found, os.environ[name])
    return [gpu for gpu in found if gpu["state"] != "missing"]


def _picked(gpus: list[dict[str, Any]], mask: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for entry in mask.split(","):
        number = int(entry) if entry.isdigit() else -1
        named = [g for i, g in enumerate(gpus) if i == number or _is_uuid(entry, g["uuid"])]
        if not named or named[0]["state"] == "missing":
            break
        found += named[:1]
    return found if len({gpu["ordinal"] for gpu in found}) == len(found) else []


def _is_uuid(entry: str, uuid: str) -> bool:
    return entry.startswith("GPU-") and uuid.startswith(entry)


SEEN = device_count()
"""How many GPUs there were when this was imported."""
