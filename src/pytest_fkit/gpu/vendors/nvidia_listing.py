"""Listing NVIDIA's GPUs: NVML, else nvidia-smi, else what the kernel driver tells in /proc.

CUDA numbers devices in PCI order if CUDA_DEVICE_ORDER is PCI_BUS_ID (CUDA C++ Programming Guide,
environment variables); so does NVML (NVML API reference, nvmlDeviceGetHandleByIndex_v2), whose
indices nvidia-smi shows. A GPU in MIG mode is replaced by its instances: CUDA programs can only
use these (MIG User Guide, "CUDA visible devices").
"""

from __future__ import annotations

import csv
import itertools
import re
from typing import Iterator

from ...named_tuple import NamedTuple
from ...own import os, own_builtins
from ..answers import (
    Answer,
    FailedError,
    MissingError,
    addresses,
    mappings,
    number,
    only_mappings,
    pci_address,
    pci_order,
    rubbish,
    word,
)
from ..devices import Device
from ..machine import Machine
from .driver import DriverError
from .nvml import UNTOLD, GpuHandle, Nvml, told
from .vendor import Found, Prober

own_builtins(globals())

# Those of nvidia-smi --help-query-gpu.
_FIELDS = ("index", "uuid", "pci.bus_id", "name", "memory.total", "mig.mode.current")

# nvidia-smi -L, in the MIG User Guide: "GPU 0: A100-SXM4-40GB (UUID: GPU-5d5ba0d6-...)", and below
# it "  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736-...)" for each instance; drivers before R470
# say "MIG-GPU-<uuid>/<GPU instance>/<compute instance>".
_LISTED_GPU = re.compile(r"GPU \d+: .*\(UUID: (GPU-[^)\s]+)\)\s*")
_LISTED_MIG = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)\s]+)\)\s*")

# That of a Jetson's GPU has no prefix (pytorch/pytorch issue 167304).
_UUID = re.compile(r"GPU-\S+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

# What nvmlErrorString says (NVML API reference, nvmlReturn_t), in brackets where a field has it.
_UNREACHABLE = re.compile(r"\bis lost\b|requires? reset|reset required", re.IGNORECASE)
_UNKNOWN = "[UNKNOWN ERROR]"

# "Unable to determine the device handle for GPU 0000:0B:00.0: Unknown Error", instead of the GPU's
# row or of all (gpustat issue 125, NVIDIA/open-gpu-kernel-modules issue 387); newer drivers leave
# out the space before the address.
_NO_HANDLE = re.compile(
    r"Unable to (?:determine|detect) the device handle for GPU *(?P<pci>[0-9A-F:.]*[0-9A-F])\b.*",
    re.IGNORECASE,
)

_GPUS = "proc/driver/nvidia/gpus"


def read_nvml(root: str) -> list[Answer]:
    """A dict for each GPU, to be read by :func:`parse_nvml`; called in a fresh interpreter.

    :raises MissingError, FailedError: see :class:`Nvml`.
    """
    nvml = Nvml(Machine(root))
    try:
        count = nvml.count()
    except DriverError as error:
        raise FailedError(nvml.text(error)) from None
    gpus = [_read_gpu(nvml, index) for index in range(count)]
    _read_links(nvml, [gpu for gpu in gpus if gpu.get("pci")])
    return gpus


def _read_gpu(nvml: Nvml, index: int) -> Answer:
    try:
        handle = nvml.gpu(index)
        uuid = nvml.uuid(handle)
    except DriverError as error:  # it fell off the bus, or is somebody else's
        return {"index": index, "error": nvml.text(error)}
    gpu = {
        "index": index,
        "uuid": uuid,
        "pci": told(nvml.pci, handle),
        "mig": told(nvml.is_in_mig_mode, handle),
        **_described(nvml, handle),
    }
    if gpu["mig"]:
        instances = told(nvml.instances, handle) or []
        gpu["instances"] = [
            {"uuid": told(nvml.uuid, each), **_described(nvml, each)} for each in instances
        ]
    return gpu


def _described(nvml: Nvml, gpu: GpuHandle) -> Answer:
    memory = told(nvml.memory, gpu)
    return {"name": told(nvml.name, gpu), "memory": memory and memory.total}


def _read_links(nvml: Nvml, gpus: list[Answer]) -> None:
    """Note with each GPU to which others it has NVLink."""
    for one, other in itertools.combinations(gpus, 2):
        try:
            linked = nvml.have_nvlink(nvml.gpu(one["index"]), nvml.gpu(other["index"]))
        except UNTOLD:  # an old driver, or a virtual GPU
            continue
        if linked:
            one.setdefault("links", []).append(other["pci"])
            other.setdefault("links", []).append(one["pci"])


def parse_nvml(facts: object) -> Found:
    """The devices from the answer of :func:`read_nvml`.

    :raises FailedError: if it is not that.
    """
    devices: list[Device] = []
    notices = []
    for gpu in only_mappings(facts):
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
    return gpu._replace(
        uuid=uuid, name=name or gpu.name, memory=number(memory) or 0, parent=gpu.uuid
    )


def _no_instances(index: int) -> str:
    return f"GPU {index} is left out: it is in MIG mode and has no instances"


def ask_nvml(prober: Prober) -> Found:
    return parse_nvml(prober.call(f"{__name__}:read_nvml"))


def ask_nvidia_smi(prober: Prober) -> Found:
    query = f"--query-gpu={','.join(_FIELDS)}"
    text, trouble = _said(prober, query, "--format=csv,noheader,nounits")
    try:
        answer = parse_query(text)
    except FailedError as error:
        if trouble is None:
            raise
        raise FailedError(str(trouble), lost=error.lost) from None
    if trouble is not None and not answer.gpus:
        raise trouble
    listed = _said(prober, "-L")[0] if any(gpu.mig for gpu in answer.gpus) else ""
    found = with_instances(answer, parse_list(listed))
    if trouble is None:
        return found
    said = str(trouble)
    return found._replace(notices=(said, *(each for each in found.notices if each not in said)))


def _said(prober: Prober, *arguments: str) -> tuple[str, FailedError | None]:
    """The output of nvidia-smi, and its failure if the status was not 0.

    A status may be a warning: 14 for a corrupted infoROM (nvidia-smi(1); pytorch/pytorch pull
    request 87464).
    """
    try:
        return prober.tool("nvidia-smi", *arguments), None
    except FailedError as error:
        if not error.printed:
            raise
        return error.printed, error


class Queried(NamedTuple):
    """A GPU in the answer of ``nvidia-smi --query-gpu``.

    :param lost: its row, if that says that the driver can't reach it, else "".
    """

    device: Device
    mig: bool
    lost: str


class ListingAnswer(NamedTuple):
    """The answer of ``nvidia-smi --query-gpu``.

    :param notices: lines about those that can't be reached, and others that a user has to know.
    :param lost: PCI addresses of the unreachable ones.
    """

    gpus: tuple[Queried, ...] = ()
    notices: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def parse_query(text: str) -> ListingAnswer:
    """The GPUs that ``nvidia-smi --query-gpu`` lists.

    The format is the one of ``--format=csv,noheader,nounits`` (nvidia-smi(1)): the fields in the
    order asked for, memory in MiB, "[N/A]" or "[Not Supported]" for what a GPU does not know, and
    "[GPU is lost]" or the like where the driver can't reach it any more. Other lines may come
    before and after.

    :raises FailedError: if no row is understood.
    """
    if text.strip() == "No devices were found":
        return ListingAnswer()
    if "\0" in text:
        raise rubbish(text)
    lines = [line.strip() for line in text.splitlines()]
    rows = [(line, _row(line)) for line in lines]
    gpus = tuple(gpu for line, row in rows for gpu in _queried(line, row))
    handles = [found for found in map(_NO_HANDLE.search, lines) if found is not None]
    lost = tuple(filter(None, (pci_address(found["pci"]) for found in handles)))
    if not gpus:
        trouble = rubbish(text)
        raise FailedError(handles[0][0] if handles else str(trouble), lost=lost)
    known = {gpu.device.ordinal for gpu in gpus}
    left_out = [found[0] for found in handles]
    left_out += [
        line
        for line, row in rows
        if len(row) > 1 and number(row[0]) is not None and number(row[0]) not in known
    ]
    warnings = (line for line in lines if line.startswith("WARNING:"))
    notices = (*warnings, *(f"a GPU is left out: {line}" for line in left_out))
    return ListingAnswer(gpus, notices, lost)


def _row(line: str) -> list[str]:
    try:
        return next(csv.reader([line], skipinitialspace=True), [])
    except csv.Error:
        return []


def _queried(line: str, row: list[str]) -> Iterator[Queried]:
    """The GPU of a row, nothing if it is none."""
    index = number(row[0]) if len(row) == len(_FIELDS) else None
    if index is None:
        return
    errors = [field.upper() for field in (row[1], row[3], row[4])]
    lost = any(map(_UNREACHABLE.search, row[1:])) or errors.count(_UNKNOWN) > 1
    if not lost and not _UUID.fullmatch(row[1]):
        return
    memory = (number(row[4]) or 0) << 20
    device = Device("nvidia", index, word(row[1]), pci_address(row[2]), word(row[3]), memory)
    yield Queried(device, word(row[5]) == "Enabled", line if lost else "")


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


def with_instances(answer: ListingAnswer, instances: dict[str, list[tuple[str, str]]]) -> Found:
    """The GPUs, those in MIG mode replaced by their instances."""
    devices = []
    notices = [*answer.notices]
    for gpu, mig, lost in answer.gpus:
        if lost:
            notices.append(f"GPU {gpu.ordinal} is left out: {lost}")
            continue
        if gpu.pci and gpu.pci in answer.lost:
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
    if not prober.machine.names("dev", r"nvidia\d+"):
        raise MissingError("no GPU has a device file /dev/nvidia<number>")
    return parse_proc(prober.call(f"{__name__}:read_proc"))


def read_proc(root: str) -> list[Answer]:
    """The driver's files on each GPU; called in a fresh interpreter, as reading takes its locks."""
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
    """The devices from the answer of :func:`read_proc`.

    ``information`` has lines as "Model:", "GPU UUID:", "Bus Location:", "Device Minor:" and "GPU
    Excluded:", the UUID with question marks until the GPU was first used (nv-procfs.c in NVIDIA's
    open-gpu-kernel-modules). The name of the directory is the PCI address.

    :raises FailedError: if it is not that.
    """
    usable = []
    for gpu in only_mappings(facts):
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
        tuple(device._replace(ordinal=i) for i, (device, mig) in enumerate(usable) if not mig),
        (),
        tuple(
            f"GPU {i} is left out: its MIG instances can't be told from /proc"
            for i, (_, mig) in enumerate(usable)
            if mig
        ),
    )
