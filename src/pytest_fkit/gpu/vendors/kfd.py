"""AMD's compute driver: the GPU nodes of its topology in sysfs, which is what HIP counts.

``nodes/<n>/properties`` has a line "name value" for each property, ``unique_id`` in decimal,
``location_id`` as bus, device and function in its lower 16 bits (kfd_topology.c in the Linux
kernel). ROCr numbers GPUs in the order of the nodes, and leaves out those whose ``gpu_id`` can't be
read or whose render device does not open, as in a container that was not given all GPUs
(topology.c in AMD's libhsakmt).

AMD's tools are not asked: their numbers are not HIP's, and HIP itself needs the topology.
"""

from __future__ import annotations

import collections
import re
from typing import Iterator, Sequence

from ...named_tuple import NamedTuple
from ...own import os, own_builtins
from ..answers import Answer, FailedError, MissingError, mappings, number, only_mappings, word
from ..devices import Device
from ..machine import Machine
from .driver import Count, Counter
from .vendor import Found, Prober, Way

own_builtins(globals())

_NODES = "sys/class/kfd/kfd/topology/nodes"
_PROCESSES = "sys/class/kfd/kfd/proc"

# HSA_MEM_HEAP_TYPE_FB_PUBLIC and _PRIVATE in kfd_crat.h.
_FRAME_BUFFER = ("1", "2")

# CRAT_IOLINK_TYPE_XGMI in kfd_crat.h.
_XGMI = "11"

LEAST_MEMORY = 4 << 30
"""Bytes of its own that make a GPU of AMD one to compute on.

The ones integrated into AMD's processors have 0.5 to 2 GiB unless their owner gives them more; the
smallest one that ROCm supports has 8 (ROCm system requirements). An MI300A, integrated too, has
128."""


# --- reading ------------------------------------------------------------------------------------


def read_nodes(root: str) -> list[Answer]:
    """The GPU nodes; called in a fresh interpreter: opening a device may wake it up, or hang.

    :raises MissingError: if there is no topology.
    """
    machine = Machine(root)
    if not machine.names(_NODES, r"\d{1,5}"):
        raise MissingError("there is none")
    nodes = []
    for name, _, properties in _gpu_nodes(machine):
        minor = properties.get("drm_render_minor", "")
        device = f"sys/class/drm/renderD{minor}/device"
        nodes.append(
            {
                "node": int(name),
                "properties": properties,
                "opens": _opens(machine, minor),
                "product": machine.text(f"{device}/product_name").strip(),
                "vram": machine.text(f"{device}/mem_info_vram_total").strip(),
                "banks": _below(machine, name, "mem_banks"),
                "links": _below(machine, name, "io_links"),
            }
        )
    return nodes


def _gpu_nodes(machine: Machine) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The number, ``gpu_id`` and properties of each node that is a GPU, in order."""
    for name in sorted(machine.names(_NODES, r"\d{1,5}"), key=int):
        gpu = machine.text(f"{_NODES}/{name}/gpu_id").strip()
        if gpu not in ("", "0"):  # forbidden, or a CPU
            yield name, gpu, _pairs(machine.text(f"{_NODES}/{name}/properties"))


def _pairs(text: str) -> dict[str, str]:
    return dict(line.split(None, 1) for line in text.splitlines() if len(line.split(None, 1)) == 2)


def _opens(machine: Machine, minor: str) -> bool:
    try:
        os.close(os.open(machine.path(f"dev/dri/renderD{minor}"), os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _below(machine: Machine, node: str, what: str) -> list[dict[str, str]]:
    directory = f"{_NODES}/{node}/{what}"
    return [
        _pairs(machine.text(f"{directory}/{each}/properties"))
        for each in machine.names(directory, r"\d+")
    ]


# --- listing ------------------------------------------------------------------------------------


class Node(NamedTuple):
    """A GPU, or a partition of one, in the topology.

    :param uuid: as ROCR_VISIBLE_DEVICES takes it, "" if it has none.
    :param pci: PCI address; partitions of a GPU have the same.
    :param memory: bytes of its own, 0 if unknown.
    :param opens: whether HIP can use it, since its render device opens.
    :param links: nodes to which it has xGMI.
    """

    number: int
    uuid: str
    pci: str
    name: str
    memory: int
    opens: bool
    links: tuple[int, ...] = ()


def parse_nodes(facts: object) -> list[Node]:
    """The nodes from the answer of :func:`read_nodes`.

    :raises FailedError: if it is not that.
    """
    read = [(_parse_node(entry), _frame_buffer(entry)) for entry in only_mappings(facts)]
    times = collections.Counter(node.pci for node, _ in read)
    # The figure of the device is the one of the whole GPU; a partition has a share of it. (The
    # banks alone won't do: those of an integrated GPU may count main memory.)
    return [
        node._replace(memory=banks) if banks and (times[node.pci] > 1 or not node.memory) else node
        for node, banks in read
    ]


def _parse_node(entry: Answer) -> Node:
    properties = entry.get("properties")
    node = number(entry.get("node"))
    if node is None or not isinstance(properties, dict):
        raise FailedError(f"the topology can't be understood: {str(entry)[:80]}")
    return Node(
        node,
        _uuid(properties.get("unique_id")),
        _pci(properties),
        word(entry.get("product")) or _target(number(properties.get("gfx_target_version"))),
        number(entry.get("vram")) or 0,
        entry.get("opens") is True,
        tuple(_xgmi(mappings(entry.get("links")))),
    )


def _uuid(unique_id: object) -> str:
    """A device for ROCR_VISIBLE_DEVICES: "GPU-" and 16 hexadecimal digits; "" for none."""
    known = isinstance(unique_id, str) and re.fullmatch(r"[0-9]{1,20}", unique_id)
    value = int(known[0]) if known else 0
    return f"GPU-{value:016x}" if 0 < value < 1 << 64 else ""


def _pci(properties: dict[str, str]) -> str:
    domain, location = number(properties.get("domain")), number(properties.get("location_id"))
    if location is None:
        return ""
    bus, device, function = location >> 8 & 0xFF, location >> 3 & 0x1F, location & 7
    return f"{domain or 0:04x}:{bus:02x}:{device:02x}.{function}"


def _target(version: int | None) -> str:
    """90402 is gfx942, 90010 is gfx90a."""
    if not version:
        return ""
    major, minor, step = version // 10000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{step:x}"


def _xgmi(links: list[Answer]) -> Iterator[int]:
    for link in links:
        to = number(link.get("node_to"))
        if link.get("type") == _XGMI and to is not None:
            yield to


def _frame_buffer(entry: Answer) -> int:
    return sum(
        number(bank.get("size_in_bytes")) or 0
        for bank in mappings(entry.get("banks"))
        if bank.get("heap_type") in _FRAME_BUFFER
    )


def as_devices(nodes: Sequence[Node]) -> Found:
    """The GPUs that HIP counts, in its order, without those that are not there to compute on."""
    opened = sorted((node for node in nodes if node.opens), key=lambda node: node.number)
    addresses = {node.number: node.pci for node in nodes if node.pci}
    # By address: partitions of a GPU have them in common.
    links: dict[str, set[str]] = collections.defaultdict(set)
    for node in nodes:
        links[node.pci].update(addresses[to] for to in node.links if to in addresses)
    times = collections.Counter(node.uuid for node in opened)
    devices = [
        Device(
            "amd",
            ordinal,
            # Partitions of a GPU had one in common before Linux 6.18.
            node.uuid if times[node.uuid] == 1 else "",
            node.pci,
            node.name,
            node.memory,
            links=tuple(sorted(links[node.pci])) if node.pci else (),
        )
        for ordinal, node in enumerate(opened)
    ]
    integrated = [device for device in devices if 0 < device.memory < LEAST_MEMORY]
    notes = [
        f"GPU {device.ordinal} is left out: an integrated one, with {device.memory >> 20} MiB"
        for device in integrated
    ]
    closed = ", ".join(str(node.number) for node in nodes if not node.opens)
    left_out = [f"left out, /dev/dri/renderD* does not open: node {closed}"] if closed else []
    if not opened:
        return Found(notices=tuple(left_out))
    kept = tuple(device for device in devices if device not in integrated)
    return Found(kept, (*notes, *left_out))


def _ask_topology(prober: Prober) -> Found:
    return as_devices(parse_nodes(prober.call(f"{__name__}:read_nodes")))


WAYS = (Way("KFD topology", _ask_topology),)


# --- memory -------------------------------------------------------------------------------------


class MemoryOfAmdGpus:
    """Finds what counts the memory of a GPU, see :class:`.vendor.Vendor`.

    Memory is in files of sysfs: ``mem_info_vram_*`` of the device (amdgpu_vram_mgr.c in the Linux
    kernel), and for each process ``kfd/proc/<pid>/vram_<gpu_id>`` (kfd_process.c).
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._ids: dict[str, list[str]] = {}  # what the driver calls a GPU, or its partitions
        for _, gpu, properties in _gpu_nodes(machine):
            self._ids.setdefault(_pci(properties), []).append(gpu)

    def find(self, uuid: str, pci: str) -> Counter:
        """The counter of the memory of the GPU at this address.

        :raises FailedError: if nobody does.
        """
        del uuid
        ids = self._ids.get(pci, [])
        if len(ids) > 1:
            raise FailedError("it is a partition, of which the driver does not count it")
        return lambda: self._count(pci, ids)

    def _count(self, pci: str, ids: Sequence[str]) -> Count:
        device = f"sys/bus/pci/devices/{pci}"
        total, used = (
            self._machine.text(f"{device}/mem_info_vram_{name}").strip()
            for name in ("total", "used")
        )
        if not pci or not (total.isdigit() and used.isdigit()):
            raise FailedError(f"{device}/mem_info_vram_used can't be read")
        processes: dict[int, int] = {}
        for pid in self._machine.names(_PROCESSES, r"\d{1,9}"):
            texts = (self._machine.text(f"{_PROCESSES}/{pid}/vram_{gpu}").strip() for gpu in ids)
            found = sum(int(text) for text in texts if text.isdigit())
            if found:
                processes[int(pid)] = found
        named = bool(ids) and self._machine.exists(_PROCESSES)
        return Count(int(total), int(total) - int(used), processes, named)
