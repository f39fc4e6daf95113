"""NVIDIA's GPUs: NVML, else nvidia-smi, else what the kernel driver tells in /proc.

CUDA numbers devices in PCI order if CUDA_DEVICE_ORDER is PCI_BUS_ID (CUDA C++ Programming Guide,
environment variables); so does NVML (NVML API reference, nvmlDeviceGetHandleByIndex_v2), whose
indices nvidia-smi shows. A GPU in MIG mode is replaced by its instances: CUDA programs can only
use these (MIG User Guide, "CUDA visible devices").
"""

from __future__ import annotations

import csv
import os
import re
from dataclasses import replace
from typing import Any, NamedTuple

from .devices import Device
from .failures import MissingError
from .machine import Machine
from .reading import addresses, mappings, number, pci_address, pci_order, rubbish, word
from .ways import Found, Prober, Way

# Those of nvidia-smi --help-query-gpu.
_FIELDS = ("index", "uuid", "pci.bus_id", "name", "memory.total", "mig.mode.current")

# nvidia-smi -L, in the MIG User Guide: "GPU 0: A100-SXM4-40GB (UUID: GPU-5d5ba0d6-...)", and below
# it "  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736-...)" for each instance; drivers before R470
# say "MIG-GPU-<uuid>/<GPU instance>/<compute instance>".
_LISTED_GPU = re.compile(r"GPU \d+: .*\(UUID: (GPU-[^)\s]+)\)\s*")
_LISTED_MIG = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)\s]+)\)\s*")

_GPUS = "proc/driver/nvidia/gpus"


def ask_nvml(prober: Prober) -> Found:
    """NVML, through nvidia-ml-py."""
    if not prober.machine.has_package("pynvml"):
        raise MissingError("nvidia-ml-py is not installed (pip install nvidia-ml-py)")
    if prober.machine.lacks_library("libnvidia-ml.so.1"):
        raise MissingError("there is no libnvidia-ml.so.1")
    return parse_nvml(prober.call("pytest_fkit.gpu.nvml:read_nvml"))


def parse_nvml(facts: object) -> Found:
    """What :func:`.nvml.read_nvml` tells, as devices.

    :raises FailedError: if it is not that.
    """
    if not isinstance(facts, list) or len(mappings(facts)) != len(facts):
        raise rubbish(str(facts))
    devices: list[Device] = []
    notices = []
    for gpu in mappings(facts):
        index = number(gpu.get("index"))
        uuid = word(gpu.get("uuid"))
        if index is None:
            raise rubbish(str(gpu))
        if not uuid:
            notices.append(f"GPU {index} is left out: {word(gpu.get('error')) or 'no UUID'}")
            continue
        whole = Device(
            "nvidia",
            index,
            uuid,
            pci_address(gpu.get("pci")),
            word(gpu.get("name")),
            number(gpu.get("memory")) or 0,
            links=addresses(gpu.get("links")),
        )
        if gpu.get("mig") is not True:
            devices.append(whole)
            continue
        instances = [
            _instance(whole, word(entry.get("uuid")), word(entry.get("name")), entry.get("memory"))
            for entry in mappings(gpu.get("instances"))
            if word(entry.get("uuid"))
        ]
        devices += instances
        if not instances:
            notices.append(_no_instances(index))
    return Found(tuple(devices), (), tuple(notices))


def _instance(gpu: Device, uuid: str, name: str, memory: object) -> Device:
    return replace(
        gpu, uuid=uuid, name=name or gpu.name, memory=number(memory) or 0, parent=gpu.uuid
    )


def _no_instances(index: int) -> str:
    return f"GPU {index} is left out: it is in MIG mode and has no instances"


def ask_nvidia_smi(prober: Prober) -> Found:
    """The program that comes with the driver."""
    query = f"--query-gpu={','.join(_FIELDS)}"
    gpus = parse_query(prober.tool("nvidia-smi", query, "--format=csv,noheader,nounits"))
    listed = prober.tool("nvidia-smi", "-L") if any(gpu.mig for gpu in gpus) else ""
    return with_instances(gpus, parse_list(listed))


class Queried(NamedTuple):
    """What ``nvidia-smi --query-gpu`` says of a GPU.

    :param mig: whether it is in MIG mode.
    :param lost: whether it fell off the bus.
    """

    device: Device
    mig: bool
    lost: bool


def parse_query(text: str) -> list[Queried]:
    """The GPUs that ``nvidia-smi --query-gpu`` lists.

    The format is the one of ``--format=csv,noheader,nounits`` (nvidia-smi(1)): the fields in the
    order asked for, memory in MiB, "[N/A]" or "[Not Supported]" for what a GPU does not know, and
    "[GPU is lost]" where the driver can't reach it any more.

    :raises FailedError: if it is not that.
    """
    if text.strip() == "No devices were found":
        return []
    try:
        rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if row]
    except csv.Error:
        raise rubbish(text) from None
    gpus = [_queried(row) for row in rows]
    if not gpus or None in gpus:
        raise rubbish(text)
    return [gpu for gpu in gpus if gpu is not None]


def _queried(row: list[str]) -> Queried | None:
    index = number(row[0])
    if len(row) != len(_FIELDS) or index is None:
        return None
    lost = any("lost" in field for field in row[1:])
    if not lost and not row[1].startswith("GPU-"):
        return None
    memory = (number(row[4]) or 0) << 20
    device = Device("nvidia", index, word(row[1]), pci_address(row[2]), word(row[3]), memory)
    return Queried(device, word(row[5]) == "Enabled", lost)


def parse_list(text: str) -> dict[str, list[tuple[str, str]]]:
    """The MIG instances that ``nvidia-smi -L`` lists: UUID and profile, by the UUID of the GPU."""
    found: dict[str, list[tuple[str, str]]] = {}
    instances: list[tuple[str, str]] = []
    for line in text.splitlines():
        gpu = _LISTED_GPU.fullmatch(line)
        if gpu:
            instances = found.setdefault(gpu[1], [])
        instance = _LISTED_MIG.fullmatch(line)
        if instance:
            instances.append((instance[2], instance[1]))
    return found


def with_instances(gpus: list[Queried], instances: dict[str, list[tuple[str, str]]]) -> Found:
    """The GPUs, those in MIG mode replaced by their instances."""
    devices = []
    notices = []
    for gpu, mig, lost in gpus:
        if lost:
            notices.append(f"GPU {gpu.ordinal} is left out: GPU is lost")
            continue
        if not mig:
            devices.append(gpu)
            continue
        below = instances.get(gpu.uuid, [])
        devices += [_instance(gpu, uuid, f"{gpu.name} MIG {name}", 0) for uuid, name in below]
        if not below:
            notices.append(_no_instances(gpu.ordinal))
    return Found(tuple(devices), (), tuple(notices))


def ask_proc(prober: Prober) -> Found:
    """The kernel driver's files."""
    if not prober.machine.names("dev", r"nvidia\d+"):
        raise MissingError("no GPU has a device file /dev/nvidia<number>")
    return parse_proc(prober.call(f"{__name__}:read_proc"))


def read_proc(root: str) -> list[dict[str, Any]]:
    """The driver's files on each GPU; called in a fresh interpreter, for they take its locks."""
    machine = Machine(root)
    gpus = []
    for name in machine.names(_GPUS, r"[0-9a-fA-F:.]+"):
        text = machine.text(f"{_GPUS}/{name}/information")
        minor = _information(text).get("Device Minor", "")
        mig = machine.names(f"proc/driver/nvidia/capabilities/gpu{minor}/mig", r"gi\d+")
        gpus.append(
            {
                "pci": name,
                "information": text,
                "openable": os.access(machine.path(f"dev/nvidia{minor}"), os.R_OK | os.W_OK),
                "mig": bool(mig),
            }
        )
    return gpus


def _information(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def parse_proc(facts: object) -> Found:
    """What :func:`read_proc` tells, as devices.

    ``information`` has lines as "Model:", "GPU UUID:", "Bus Location:", "Device Minor:" and "GPU
    Excluded:", the UUID with question marks until the GPU was first used (nv-procfs.c in NVIDIA's
    open-gpu-kernel-modules). The name of the directory is the PCI address.

    :raises FailedError: if it is not that.
    """
    if not isinstance(facts, list) or len(mappings(facts)) != len(facts):
        raise rubbish(str(facts))
    usable = []
    for gpu in mappings(facts):
        told = _information(str(gpu.get("information")))
        pci = pci_address(gpu.get("pci"))
        if not pci:
            raise rubbish(str(gpu))
        if gpu.get("openable") is not True or told.get("GPU Excluded", "No") != "No":
            continue
        uuid = told.get("GPU UUID", "")
        device = Device("nvidia", 0, "" if "?" in uuid else uuid, pci, told.get("Model", ""))
        usable.append((device, gpu.get("mig") is True))
    usable.sort(key=lambda entry: pci_order(entry[0].pci))
    return Found(
        tuple(replace(device, ordinal=i) for i, (device, mig) in enumerate(usable) if not mig),
        (),
        tuple(
            f"GPU {i} is left out: its MIG instances can't be told from /proc"
            for i, (_, mig) in enumerate(usable)
            if mig
        ),
    )


WAYS = (Way("NVML", ask_nvml), Way("nvidia-smi", ask_nvidia_smi), Way("/proc", ask_proc))
