"""What NVML tells, through nvidia-ml-py; called in a fresh interpreter.

Functions and errors are those of the NVML API reference.
"""

from __future__ import annotations

import itertools
from typing import Any, Callable

from ..asking.failures import FailedError, MissingError


def read_nvml(_root: str) -> list[dict[str, Any]]:
    """A dict for each GPU, to be read by :func:`.nvidia.parse_nvml`.

    :raises MissingError: if there is no library.
    :raises FailedError: if it can't be initialised, as when library and driver differ in version.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError_LibraryNotFound:
        raise MissingError("there is no libnvidia-ml.so.1") from None
    except pynvml.NVMLError as error:
        raise FailedError(str(error)) from None
    gpus = [_read_gpu(pynvml, index) for index in range(count)]
    _read_links(pynvml, [gpu for gpu in gpus if gpu.get("pci")])
    return gpus


def _read_links(nvml: Any, gpus: list[dict[str, Any]]) -> None:
    """Note with each GPU to which it has NVLink, directly or by switches."""
    for one, other in itertools.combinations(gpus, 2):
        try:
            first = nvml.nvmlDeviceGetHandleByIndex(one["index"])
            second = nvml.nvmlDeviceGetHandleByIndex(other["index"])
            status = nvml.nvmlDeviceGetP2PStatus(first, second, nvml.NVML_P2P_CAPS_INDEX_NVLINK)
        except nvml.NVMLError:  # an old driver, or a virtual GPU
            continue
        if status == nvml.NVML_P2P_STATUS_OK:
            one.setdefault("links", []).append(other["pci"])
            other.setdefault("links", []).append(one["pci"])


def _read_gpu(nvml: Any, index: int) -> dict[str, Any]:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
    except nvml.NVMLError as error:  # it fell off the bus, or is somebody else's
        return {"index": index, "error": str(error)}
    gpu: dict[str, Any] = {"index": index, "uuid": uuid}
    readers: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("pci", lambda: _text(nvml.nvmlDeviceGetPciInfo(handle).busId)),
        ("name", lambda: _text(nvml.nvmlDeviceGetName(handle))),
        ("memory", lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total),
        ("mig", lambda: nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE),
    )
    for name, read in readers:
        try:
            gpu[name] = read()
        except nvml.NVMLError:  # not every GPU knows everything: MIG, or memory of its own
            continue
    if gpu.get("mig"):
        gpu["instances"] = _read_instances(nvml, handle)
    return gpu


def _read_instances(nvml: Any, gpu: Any) -> list[dict[str, Any]]:
    instances = []
    try:
        most = nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)
    except nvml.NVMLError:
        most = 0
    for index in range(most):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)
            uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        except nvml.NVMLError:  # there are fewer than there could be
            continue
        instance = {"uuid": uuid}
        try:
            instance["name"] = _text(nvml.nvmlDeviceGetName(handle))
            instance["memory"] = nvml.nvmlDeviceGetMemoryInfo(handle).total
        except nvml.NVMLError:
            pass
        instances.append(instance)
    return instances


def _text(value: Any) -> str:
    # Old versions of the package give bytes.
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
