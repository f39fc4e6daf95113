"""Looks at NVIDIA's GPUs again and again, through nvidia-ml-py; runs in a process of its own.

NVML opens no GPU context, but a driver in trouble can hang or crash who asks it. Functions and
errors are those of the NVML API reference.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

INTERVAL = 0.1
"""Seconds between two looks; the driver itself measures utilisation over 1/6 to 1 s."""


def sample(descriptor: str, parent: str, *uuids: str) -> None:
    """Write a line of JSON whenever something has changed, as long as the parent is there.

    ``{"wall": seconds since the epoch, "mono": seconds, "used": [[bytes, per cent], ...]}``, in the
    order of the UUIDs, None for what a GPU does not tell; or ``{"error": text}`` as the last.

    :param descriptor: of the file.
    :param parent: the pid of the process that reads it.
    :param uuids: of GPUs and MIG instances.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByUUID(uuid.encode()) for uuid in uuids]
    except pynvml.NVMLError as error:
        _write(int(descriptor), error=str(error))
        return
    last = None
    while os.getppid() == int(parent):
        used = [[_memory(pynvml, each), _utilisation(pynvml, each)] for each in handles]
        if used != last:
            wall, mono = round(time.time(), 6), round(time.monotonic(), 6)
            _write(int(descriptor), wall=wall, mono=mono, used=used)
            last = used
        time.sleep(INTERVAL)


def _memory(nvml: Any, handle: Any) -> int | None:
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)
    except nvml.NVMLError:  # it fell off the bus, or has no memory of its own
        return None


def _utilisation(nvml: Any, handle: Any) -> int | None:
    try:
        return int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except nvml.NVMLError:  # MIG instances don't know
        return None


def _write(descriptor: int, **fields: Any) -> None:
    # One call, to a file that is appended to: a line is there as a whole, or not.
    os.write(descriptor, json.dumps(fields).encode() + b"\n")
